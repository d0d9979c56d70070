//! Stores that do not commit what they acknowledge, or not yet, or never.

use std::{
    collections::HashSet,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use event_aggregator::{
    event::{Difference, NewEvent, Outcome, Verdict},
    store::{Batch, Error, Store, StoreLayer},
};
use tokio::{
    signal::unix::{SignalKind, signal},
    time::sleep,
};
use tokio_util::sync::CancellationToken;

use super::verdicts::{all_new, look_up, new};

/// Before a commit is tried again.
const PAUSE: Duration = Duration::from_millis(50);

/// Commits of a lane before it is dead.
const COMMITS: usize = 20;

/// Judges a batch by what is stored now, acknowledges it, and commits it afterwards.
pub struct AckBeforeCommit(pub Arc<dyn Store>);

#[async_trait]
impl StoreLayer for AckBeforeCommit {
    fn inner(&self) -> &dyn Store {
        &*self.0
    }

    async fn commit(&self, batch: Arc<Batch>) -> Result<Vec<Outcome>, Error> {
        let found = look_up(&*self.0, &batch).await?;
        let mut new_keys = HashSet::new();
        let judge = |event: &NewEvent| match found.get(&event.key) {
            Some(stored) => {
                let difference = Difference {
                    source: *stored.source != *event.source,
                    payload: stored.payload.as_str() != event.payload.as_str(),
                    ..Difference::default()
                };
                let verdict = match difference == Difference::default() {
                    true => Verdict::Duplicate,
                    false => Verdict::Conflict(difference),
                };
                Outcome { verdict, first_received_at: stored.received_at, compared_bytes: 0 }
            }
            None if new_keys.insert(event.key.clone()) => new(&batch),
            None => Outcome { verdict: Verdict::Duplicate, ..new(&batch) },
        };
        let outcomes = batch.events.iter().map(judge).collect();
        let store = Arc::clone(&self.0);
        tokio::spawn(async move {
            while let Err(_later) = store.commit(Arc::clone(&batch)).await {
                sleep(PAUSE).await;
            }
        });
        Ok(outcomes)
    }
}

/// Acknowledges what waits when the process receives SIGTERM, and throws it away.
pub struct DrainThrowsAway {
    store: Arc<dyn Store>,
    stopping: CancellationToken,
}

impl DrainThrowsAway {
    pub fn over(store: Arc<dyn Store>) -> Self {
        let stopping = CancellationToken::new();
        let mut terminate = signal(SignalKind::terminate()).expect("a signal handler");
        let stop = stopping.clone();
        tokio::spawn(async move {
            terminate.recv().await;
            stop.cancel();
        });
        Self { store, stopping }
    }
}

#[async_trait]
impl StoreLayer for DrainThrowsAway {
    fn inner(&self) -> &dyn Store {
        &*self.store
    }

    async fn commit(&self, batch: Arc<Batch>) -> Result<Vec<Outcome>, Error> {
        match self.stopping.is_cancelled() {
            true => Ok(all_new(&batch)),
            false => self.store.commit(batch).await,
        }
    }
}

/// The first lane of a process waits forever for one of its commits.
pub struct DeadLane {
    store: Arc<dyn Store>,
    commits: AtomicUsize,
}

impl DeadLane {
    pub fn over(store: Arc<dyn Store>) -> Self {
        Self { store, commits: AtomicUsize::new(0) }
    }
}

#[async_trait]
impl StoreLayer for DeadLane {
    fn inner(&self) -> &dyn Store {
        &*self.store
    }

    async fn commit(&self, batch: Arc<Batch>) -> Result<Vec<Outcome>, Error> {
        if batch.lane == 0 && self.commits.fetch_add(1, Ordering::SeqCst) >= COMMITS {
            std::future::pending().await
        }
        self.store.commit(batch).await
    }
}
