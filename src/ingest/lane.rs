//! A lane: a serial commit queue. Its task takes what has queued, commits it as one batch, answers
//! everyone who waits for it, and begins again.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Instant,
};

use backon::{ExponentialBuilder, Retryable};
use tokio::sync::mpsc;
use tracing::{error, info, warn};
use uuid::Uuid;
use xxhash_rust::xxh3::xxh3_64;

use super::{Error, Shared, Submission, batch::Gathering};
use crate::{
    event::{Outcome, Timestamp},
    limits::{COMMIT_BACKOFF, COMMIT_RETRY},
    store::{self, Batch, Store},
};

/// The lane of a topic. Part of what a database means: it must give the same answer in all versions
/// of the program.
pub(super) fn of(topic: &str, lanes: usize) -> u16 {
    (xxh3_64(topic.as_bytes()) % lanes as u64) as u16
}

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

/// Commits submissions as one batch and answers them. If the store refuses the data, each is
/// committed on its own, so that a fault in one costs the others nothing.
async fn commit(lane: u16, store: &dyn Store, mut submissions: Vec<Submission>, shared: &Shared) {
    let sizes: Vec<usize> = submissions.iter().map(|submission| submission.events.len()).collect();
    let events = submissions.iter_mut().flat_map(|submission| submission.events.drain(..));
    let batch = Arc::new(Batch {
        id: Uuid::now_v7(),
        lane,
        received_at: Timestamp::now(),
        events: events.collect(),
    });
    match commit_batch(store, Arc::clone(&batch), shared).await {
        Ok(outcomes) => {
            let mut counters = shared.counters();
            outcomes.iter().for_each(|outcome| counters.judged.add(outcome.verdict));
            drop(counters);
            let mut outcomes = outcomes.into_iter();
            for (submission, size) in submissions.into_iter().zip(sizes) {
                // Whoever waited may have gone away.
                let _ = submission.reply.send(Ok(outcomes.by_ref().take(size).collect()));
            }
        }
        Err(Error::Refused(_)) if submissions.len() > 1 => {
            let mut events = batch.events.iter().cloned();
            for (mut submission, size) in submissions.into_iter().zip(sizes) {
                submission.events = events.by_ref().take(size).collect();
                Box::pin(commit(lane, store, vec![submission], shared)).await;
            }
        }
        Err(error) => {
            for submission in submissions {
                let _ = submission.reply.send(Err(error.clone()));
            }
        }
    }
}

/// Commits one batch, trying again while the store is away: a batch is applied once however often
/// it is tried.
async fn commit_batch(
    store: &dyn Store,
    batch: Arc<Batch>,
    shared: &Shared,
) -> Result<Vec<Outcome>, Error> {
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
        Err(error) => {
            error!(lane, events, error = store::chain(error), "commit failed; giving up");
        }
    }
    result.map_err(|error| match error {
        store::Error::Refused(_) => Error::Refused(Arc::new(error)),
        _ => Error::Unavailable(Arc::new(error)),
    })
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_lane_of_a_topic_never_changes() {
        let lanes: Vec<u16> =
            ["orders", "payments", "clicks", "ü"].iter().map(|topic| super::of(topic, 4)).collect();
        assert_eq!(lanes, [3, 1, 3, 2]);
    }
}
