//! Commits events until the outcome of each is certain: retries while the store is unavailable, and
//! splits batches that the store cannot commit.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Instant,
};

use backon::{BackoffBuilder, ExponentialBuilder};
use futures_util::future::BoxFuture;
use tokio::time::sleep;
use tracing::{error, info, warn};

use super::{Error, Settled, Shared};
use crate::{
    event::{NewEvent, Outcome, Timestamp},
    limits::{
        COMMIT_RETRY, FAULT_TRIES, MAX_COMMIT_BACKOFF, MAX_FAULTY_EVENTS, MIN_COMMIT_BACKOFF,
    },
    store::{self, Batch, Store},
};

/// Why events were not committed.
#[derive(Debug)]
pub(super) enum Failure {
    /// They need too many comparisons for one batch, and nothing was stored. Has all events, more
    /// than one, and for some of them the bytes to compare, by index.
    TooMuch { events: Vec<NewEvent>, excess: Vec<(usize, usize)> },
    /// The store failed.
    Error(Error),
}

impl From<store::Error> for Failure {
    fn from(error: store::Error) -> Self {
        Self::Error(Error::Unavailable(Arc::new(error)))
    }
}

/// Commits events as one batch.
pub(super) async fn settle(
    lane: u16,
    store: &dyn Store,
    events: Vec<NewEvent>,
    shared: &Shared,
) -> Result<Vec<Settled>, Failure> {
    let mut settling = Settling { lane, store, shared, fault_tries: FAULT_TRIES, faulty: 0 };
    let batch = settling.batch(events);
    match settling.commit(&batch).await {
        Err(store::Error::TooMuch { excess }) if batch.events.len() > 1 => {
            let events = Arc::try_unwrap(batch).map(|batch| batch.events);
            let events = events.unwrap_or_else(|shared| shared.events.clone());
            Err(Failure::TooMuch { events, excess })
        }
        committed => settling.judge(&batch, committed).await,
    }
}

struct Settling<'a> {
    lane: u16,
    store: &'a dyn Store,
    shared: &'a Shared,
    /// Number of attempts after which the events themselves may be at fault.
    fault_tries: u32,
    /// Number of events that the store could not store.
    faulty: usize,
}

impl Settling<'_> {
    fn batch(&self, events: Vec<NewEvent>) -> Arc<Batch> {
        let received_at = Timestamp::now();
        Arc::new(Batch { id: received_at.new_uuid(), lane: self.lane, received_at, events })
    }

    /// Commits a batch. If the store rejects it, fails on it, or finds too much to compare, its
    /// halves are committed separately, down to the event at fault.
    async fn judge(
        &mut self,
        batch: &Batch,
        committed: Result<Vec<Outcome>, store::Error>,
    ) -> Result<Vec<Settled>, Failure> {
        let error = match committed {
            Ok(outcomes) => {
                self.shared.committed.notify_one();
                let mut counters = self.shared.counters.lock();
                outcomes.iter().for_each(|outcome| counters.judged.add(outcome.verdict));
                return Ok(outcomes.into_iter().map(Settled::Judged).collect());
            }
            Err(error) => error,
        };
        match (error, &*batch.events) {
            (error @ (store::Error::Refused(_) | store::Error::Fault(_)), [event]) => {
                // Debug formatting escapes the names, so that they stay on one line.
                let (topic, event_id) = (&*event.key.topic, &*event.key.event_id);
                let (lane, cause) = (self.lane, store::chain(&error));
                error!(
                    lane,
                    ?topic,
                    ?event_id,
                    error = cause,
                    "skipping an event that the database cannot store"
                );
                self.faulty += usize::from(matches!(error, store::Error::Fault(_)));
                match self.faulty > MAX_FAULTY_EVENTS {
                    true => Err(error.into()),
                    false => Ok(vec![Settled::RefusedByStore]),
                }
            }
            (
                store::Error::Refused(_) | store::Error::Fault(_) | store::Error::TooMuch { .. },
                events,
            ) if events.len() > 1 => {
                self.fault_tries = 1;
                let (one, other) = events.split_at(events.len() / 2);
                let mut outcomes = self.part(one).await?;
                outcomes.extend(self.part(other).await?);
                Ok(outcomes)
            }
            (error, _) => Err(error.into()),
        }
    }

    fn part<'b>(
        &'b mut self,
        events: &'b [NewEvent],
    ) -> BoxFuture<'b, Result<Vec<Settled>, Failure>> {
        Box::pin(async move {
            let batch = self.batch(events.to_vec());
            let committed = self.commit(&batch).await;
            self.judge(&batch, committed).await
        })
    }

    /// Commits one batch, and retries while the store is unavailable: a batch is applied at most
    /// once, however often it is committed.
    async fn commit(&self, batch: &Arc<Batch>) -> Result<Vec<Outcome>, store::Error> {
        let mut pauses = ExponentialBuilder::default()
            .with_min_delay(MIN_COMMIT_BACKOFF)
            .with_max_delay(MAX_COMMIT_BACKOFF)
            .without_max_times()
            .with_jitter()
            .build();
        let deadline = Instant::now() + COMMIT_RETRY;
        let (lane, events) = (self.lane, batch.events.len());
        let (mut tries, mut faults, mut is_unknown) = (1_u32, 0_u32, false);
        let result = loop {
            let error = match self.store.commit(Arc::clone(batch)).await {
                Ok(outcomes) => break Ok(outcomes),
                Err(error) => error,
            };
            is_unknown |= matches!(error, store::Error::Unknown(_));
            faults = if matches!(error, store::Error::Fault(_)) { faults + 1 } else { 0 };
            if faults >= self.fault_tries && !is_unknown && self.takes_nothing().await {
                break Err(error);
            }
            let pause = pauses.next().filter(|_| Instant::now() < deadline);
            let Some(pause) = pause.filter(|_| error.is_retryable()) else {
                // Splitting is unsafe after an unknown outcome, because the parts are other
                // batches, and useless if the fault is not in the events.
                break Err(match error {
                    store::Error::Fault(cause) => store::Error::Unavailable(cause),
                    store::Error::Refused(cause) if is_unknown => store::Error::Unavailable(cause),
                    store::Error::TooMuch { .. } if is_unknown => {
                        store::Error::Unavailable("retry needs too many comparisons".into())
                    }
                    error => error,
                });
            };
            if tries == 1 {
                self.shared.stuck.fetch_add(1, Ordering::Relaxed);
            }
            tries += 1;
            if !error.is_logged() {
                let cause = store::chain(&error);
                warn!(lane, events, error = cause, ?pause, "commit failed; retrying");
            }
            sleep(pause).await;
        };
        if tries > 1 {
            self.shared.stuck.fetch_sub(1, Ordering::Relaxed);
        }
        match &result {
            Ok(_) if tries > 1 => info!(lane, events, tries, "commit succeeded after retries"),
            Ok(_) => (),
            Err(store::Error::TooMuch { .. }) => info!(lane, events, "splitting a batch"),
            Err(store::Error::Refused(_) | store::Error::Fault(_)) if events == 1 => (),
            Err(error @ (store::Error::Refused(_) | store::Error::Fault(_))) => {
                let cause = store::chain(error);
                warn!(
                    lane,
                    events,
                    error = cause,
                    "splitting a failed batch to isolate the event at fault"
                );
            }
            Err(error) if error.is_logged() => (),
            Err(error) => {
                error!(lane, events, error = store::chain(error), "commit failed; giving up");
            }
        }
        result
    }

    /// Whether the store commits an empty batch. If it does not, the events are not at fault.
    async fn takes_nothing(&self) -> bool {
        self.store.commit(self.batch(Vec::new())).await.is_ok()
    }
}
