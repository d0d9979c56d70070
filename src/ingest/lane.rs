//! A lane: a serial commit queue. Its task takes what has queued, commits it as one batch, answers
//! everyone who waits for it, and begins again.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Instant,
};

use backon::{ExponentialBuilder, Retryable};
use tokio::sync::mpsc;
use tracing::{error, warn};
use uuid::Uuid;
use xxhash_rust::xxh3::xxh3_64;

use super::{Error, ProcessCounters, Submission, batch::Gathering};
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

/// Works until all handles to the queue are dropped and it is empty.
pub(super) async fn run(
    lane: u16,
    store: Arc<dyn Store>,
    mut queue: mpsc::Receiver<Submission>,
    counters: Arc<Mutex<ProcessCounters>>,
) {
    let mut left_over = None;
    loop {
        let first = match left_over.take() {
            Some(submission) => submission,
            None => match queue.recv().await {
                Some(submission) => submission,
                None => return,
            },
        };
        let mut batch = Gathering::new(first);
        while left_over.is_none()
            && let Ok(next) = queue.try_recv()
        {
            left_over = batch.add(next);
        }
        commit(lane, &*store, batch.into_submissions(), &counters).await;
    }
}

/// Commits submissions as one batch and answers them. If the store refuses the data, each is
/// committed on its own, so that a fault in one costs the others nothing.
async fn commit(
    lane: u16,
    store: &dyn Store,
    mut submissions: Vec<Submission>,
    counters: &Mutex<ProcessCounters>,
) {
    let sizes: Vec<usize> = submissions.iter().map(|submission| submission.events.len()).collect();
    let events = submissions.iter_mut().flat_map(|submission| submission.events.drain(..));
    let batch = Arc::new(Batch {
        id: Uuid::now_v7(),
        lane,
        received_at: Timestamp::now(),
        events: events.collect(),
    });
    match commit_batch(store, Arc::clone(&batch)).await {
        Ok(outcomes) => {
            count(counters, &outcomes);
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
                Box::pin(commit(lane, store, vec![submission], counters)).await;
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
async fn commit_batch(store: &dyn Store, batch: Arc<Batch>) -> Result<Vec<Outcome>, Error> {
    let backoff = ExponentialBuilder::default()
        .with_min_delay(COMMIT_BACKOFF.0)
        .with_max_delay(COMMIT_BACKOFF.1)
        .without_max_times()
        .with_jitter();
    let deadline = Instant::now() + COMMIT_RETRY;
    let (lane, events) = (batch.lane, batch.events.len());
    (|| store.commit(Arc::clone(&batch)))
        .retry(backoff)
        .when(|error| error.is_retryable() && Instant::now() < deadline)
        .notify(|error, pause| {
            let cause = store::chain(error);
            warn!(lane, events, error = cause, ?pause, "commit failed; trying again");
        })
        .await
        .map_err(|error| {
            error!(lane, events, error = store::chain(&error), "commit failed; giving up");
            match error {
                store::Error::Refused(_) => Error::Refused(Arc::new(error)),
                _ => Error::Unavailable(Arc::new(error)),
            }
        })
}

fn count(counters: &Mutex<ProcessCounters>, outcomes: &[Outcome]) {
    let mut counters = counters.lock().unwrap_or_else(PoisonError::into_inner);
    for outcome in outcomes {
        counters.judged.add(outcome.verdict);
    }
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
