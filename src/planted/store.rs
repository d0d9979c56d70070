//! The store with a bug: which call of it goes wrong in which way. What is wrong with commits is told
//! next door.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicI64, Ordering},
    },
    time::{Duration, Instant},
};

use async_trait::async_trait;
use tokio::{
    signal::unix::{SignalKind, signal},
    time::sleep,
};
use uuid::Uuid;

use super::{
    Bug::{self, *},
    acknowledging::{self, STOPPING},
    retrying,
};
use crate::{
    event::{EventKey, Outcome, Timestamp},
    store::{Batch, Error, FeedQuery, Found, LaneState, ListQuery, Page, Place, Stats, Store},
};

/// How old counters from memory may be.
const MEMORY: Duration = Duration::from_secs(1);

/// How long a commit takes of which nobody shall hear.
const COMMIT: Duration = Duration::from_millis(100);

/// How many commits a lane makes before it is dead.
const COMMITS: i64 = 20;

/// How far listings lag behind.
const LAG: Duration = Duration::from_secs(2);

pub(super) struct PlantedStore {
    bug: Bug,
    store: Arc<dyn Store>,
    doubts: retrying::Doubts,
    known: acknowledging::Known,
    stats: Mutex<Option<(Instant, Stats)>>,
    /// By lane, how many numbers are given out and not committed.
    in_flight: Vec<AtomicI64>,
    /// Commits of the first lane.
    commits: AtomicI64,
}

impl PlantedStore {
    pub(super) fn plant(bug: Bug, store: Arc<dyn Store>) -> Arc<dyn Store> {
        if let (DrainThrowsAway | AcksDroppedOnDrain, Ok(mut stop)) =
            (bug, signal(SignalKind::terminate()))
        {
            tokio::spawn(async move {
                stop.recv().await;
                STOPPING.cancel();
            });
        }
        let in_flight = (0..store.lanes()).map(|_| AtomicI64::new(0)).collect();
        let (doubts, known, stats, commits) = Default::default();
        Arc::new(Self { bug, store, doubts, known, stats, in_flight, commits })
    }

    async fn counters_from_memory(
        &self,
        topic: Option<String>,
        max_topics: usize,
    ) -> Result<Stats, Error> {
        let memory = || self.stats.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((at, stats)) = &*memory()
            && at.elapsed() < MEMORY
        {
            return Ok(stats.clone());
        }
        let stats = self.store.stats(topic, max_topics).await?;
        *memory() = Some((Instant::now(), stats.clone()));
        Ok(stats)
    }

    async fn given_out(&self, batch: Arc<Batch>) -> Result<Vec<Outcome>, Error> {
        let (lane, events) = (usize::from(batch.lane), batch.events.len() as i64);
        self.in_flight[lane].fetch_add(events, Ordering::SeqCst);
        let outcomes = self.store.commit(batch).await;
        self.in_flight[lane].fetch_sub(events, Ordering::SeqCst);
        outcomes
    }
}

#[async_trait]
impl Store for PlantedStore {
    fn id(&self) -> Uuid {
        self.store.id()
    }

    fn location(&self) -> &str {
        self.store.location()
    }

    fn lanes(&self) -> u16 {
        self.store.lanes()
    }

    async fn commit(&self, batch: Arc<Batch>) -> Result<Vec<Outcome>, Error> {
        let store = &self.store;
        match self.bug {
            AckBeforeCommit => acknowledging::first(store, batch).await,
            BlindRetry => self.doubts.retry_blindly(store, batch).await,
            ProbeBySelect => self.doubts.probe(store, batch).await,
            PanicIsAbort => self.doubts.retry_after_errors(store, batch).await,
            UnknownIsDone => match store.commit(Arc::clone(&batch)).await {
                Err(Error::Unknown(_)) => Ok(acknowledging::all_new(&batch)),
                result => result,
            },
            DrainThrowsAway if STOPPING.is_cancelled() => Ok(acknowledging::all_new(&batch)),
            AcksDroppedOnDrain => {
                sleep(COMMIT).await;
                store.commit(batch).await
            }
            DeadLane
                if batch.lane == 0 && self.commits.fetch_add(1, Ordering::SeqCst) >= COMMITS =>
            {
                std::future::pending().await
            }
            UncountedDuplicates => self.known.drop_repeated(store, batch).await,
            AcceptedTwice => {
                let outcomes = store.commit(Arc::clone(&batch)).await?;
                Ok(acknowledging::repeated_as_new(&batch, outcomes))
            }
            ConflictIsDuplicate => {
                let outcomes = store.commit(batch).await?;
                Ok(outcomes.into_iter().map(acknowledging::without_conflict).collect())
            }
            PlainSequence => self.given_out(batch).await,
            _ => store.commit(batch).await,
        }
    }

    async fn list(&self, query: ListQuery) -> Result<Page, Error> {
        let is_first = query.after.is_none();
        let mut page = self.store.list(query).await?;
        match self.bug {
            PageBorder if !is_first && !page.events.is_empty() => {
                page.events.remove(0);
                page.more &= !page.events.is_empty();
            }
            LaggingListing => {
                let listed = page.events.len();
                let horizon = Timestamp::now().as_micros() - LAG.as_micros() as i64;
                page.events.retain(|event| event.received_at.as_micros() < horizon);
                page.more &= page.events.len() == listed;
            }
            _ => (),
        }
        Ok(page)
    }

    async fn get(&self, keys: Vec<EventKey>, max_bytes: usize) -> Result<Found, Error> {
        self.store.get(keys, max_bytes).await
    }

    async fn stats(&self, topic: Option<String>, max_topics: usize) -> Result<Stats, Error> {
        match self.bug {
            CountersFromMemory => self.counters_from_memory(topic, max_topics).await,
            _ => self.store.stats(topic, max_topics).await,
        }
    }

    async fn heads(&self, at: Vec<i64>) -> Result<Vec<LaneState>, Error> {
        let mut heads = self.store.heads(at).await?;
        let in_flight = self.in_flight.iter().map(|lane| lane.load(Ordering::SeqCst));
        heads.iter_mut().zip(in_flight).for_each(|(lane, in_flight)| {
            lane.head.seq += in_flight;
            // What is not committed has no time yet.
            lane.head.received_at = lane.head.received_at.filter(|_| in_flight == 0);
        });
        Ok(heads)
    }

    async fn read(&self, query: FeedQuery) -> Result<Page, Error> {
        self.store.read(query).await
    }

    async fn positions_at(&self, place: Place) -> Result<Vec<i64>, Error> {
        self.store.positions_at(place).await
    }

    async fn ping(&self) -> Result<(), Error> {
        self.store.ping().await
    }

    async fn close(&self) {
        self.store.close().await;
    }
}
