//! A lane: a serial commit queue. Its task takes what has queued, commits it as one batch, answers
//! everyone who waits for it, and begins again.

use std::{
    pin::Pin,
    sync::{Arc, atomic::Ordering},
    time::Instant,
};

use backon::{ExponentialBuilder, Retryable};
use tokio::sync::mpsc;
use tracing::{Instrument, error, info, info_span, warn};
use uuid::Uuid;

use super::{Error, Reply, Shared, Submission, batch::Gathering};
use crate::{
    event::{NewEvent, Outcome, Timestamp},
    limits::{COMMIT_BACKOFF, COMMIT_RETRY},
    store::{self, Batch, Store},
    trace,
};

/// Works until the queue is closed and empty.
pub(super) async fn run(
    lane: u16,
    store: Arc<dyn Store>,
    mut queue: mpsc::Receiver<Submission>,
    shared: Arc<Shared>,
) {
    let mut left_over = None;
    loop {
        let first = match left_over.take() {
            Some(submission) => submission,
            None => {
                let received = tokio::select! {
                    received = queue.recv() => received,
                    () = shared.closing.cancelled(), if !queue.is_closed() => {
                        queue.close();
                        continue;
                    }
                };
                let Some(submission) = received else { return };
                submission
            }
        };
        let mut batch = Gathering::new(first);
        while left_over.is_none()
            && let Ok(next) = queue.try_recv()
        {
            left_over = batch.add(next);
        }
        commit(lane, &*store, batch.into_submissions(), &shared).await;
    }
}

/// Commits submissions as one batch and answers them.
async fn commit(lane: u16, store: &dyn Store, mut submissions: Vec<Submission>, shared: &Shared) {
    let sizes: Vec<usize> = submissions.iter().map(|submission| submission.events.len()).collect();
    let mut events = Vec::with_capacity(sizes.iter().sum());
    submissions.iter_mut().for_each(|submission| events.append(&mut submission.events));
    let span = info_span!(target: trace::TARGET, "commit", lane, events = events.len());
    submissions.iter().for_each(|submission| _ = span.follows_from(&submission.span));
    let settled = settle(lane, store, events, shared).instrument(span).await;
    let mut outcomes = settled.map(Vec::into_iter);
    for (submission, size) in submissions.into_iter().zip(sizes) {
        let reply = match &mut outcomes {
            Ok(outcomes) => Ok(outcomes.take(size).collect()),
            Err(error) => Err(error.clone()),
        };
        // Whoever waited may have gone away.
        let _ = submission.reply.send(reply);
    }
}

/// Commits events as one batch. If that is too much, or the store refuses the data, halves of it are
/// committed apart, down to the one event that it refuses.
fn settle<'a>(
    lane: u16,
    store: &'a dyn Store,
    events: Vec<NewEvent>,
    shared: &'a Shared,
) -> Pin<Box<dyn Future<Output = Reply> + Send + 'a>> {
    Box::pin(async move {
        let id = Uuid::now_v7();
        let batch = Arc::new(Batch { id, lane, received_at: Timestamp::now(), events });
        match commit_batch(store, Arc::clone(&batch), shared).await {
            Ok(outcomes) => {
                shared.committed.notify_one();
                let mut counters = shared.counters();
                outcomes.iter().for_each(|outcome| counters.judged.add(outcome.verdict));
                drop(counters);
                Ok(outcomes.into_iter().map(Some).collect())
            }
            Err(store::Error::Refused(_)) if batch.events.len() == 1 => Ok(vec![None]),
            Err(store::Error::Refused(_) | store::Error::TooMuch) if batch.events.len() > 1 => {
                let (one, other) = batch.events.split_at(batch.events.len() / 2);
                let mut outcomes = settle(lane, store, one.to_vec(), shared).await?;
                outcomes.extend(settle(lane, store, other.to_vec(), shared).await?);
                Ok(outcomes)
            }
            Err(error) => Err(Error::Unavailable(Arc::new(error))),
        }
    })
}

/// Commits one batch, trying again while the store is away: a batch is applied once however often
/// it is tried.
async fn commit_batch(
    store: &dyn Store,
    batch: Arc<Batch>,
    shared: &Shared,
) -> Result<Vec<Outcome>, store::Error> {
    let backoff = ExponentialBuilder::default()
        .with_min_delay(COMMIT_BACKOFF.0)
        .with_max_delay(COMMIT_BACKOFF.1)
        .without_max_times()
        .with_jitter();
    let deadline = Instant::now() + COMMIT_RETRY;
    let (lane, events) = (batch.lane, batch.events.len());
    let mut tries = 1_u32;
    let result = (|| store.commit(Arc::clone(&batch)))
        .retry(backoff)
        .when(|error| error.is_retryable() && Instant::now() < deadline)
        .notify(|error, pause| {
            if tries == 1 {
                shared.stuck.fetch_add(1, Ordering::Relaxed);
            }
            tries += 1;
            if error.is_logged() {
                return;
            }
            let cause = store::chain(error);
            warn!(lane, events, error = cause, ?pause, "commit failed; trying again");
        })
        .await;
    if tries > 1 {
        shared.stuck.fetch_sub(1, Ordering::Relaxed);
    }
    match &result {
        Ok(_) if tries > 1 => info!(lane, events, tries, "committed after all"),
        Ok(_) => (),
        // Of a try whose end is not known, the parts would know nothing.
        Err(store::Error::TooMuch) if tries > 1 => {
            return Err(store::Error::Unavailable("it is too much to try again".into()));
        }
        Err(store::Error::TooMuch) => info!(lane, events, "committing a batch in parts"),
        Err(error @ store::Error::Refused(_)) => {
            error!(lane, events, error = store::chain(error), "the store refuses valid data");
        }
        Err(error) if error.is_logged() => (),
        Err(error) => {
            error!(lane, events, error = store::chain(error), "commit failed; giving up");
        }
    }
    result
}
