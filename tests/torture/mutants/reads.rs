//! Stores that return wrong counters, pages and heads.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicI64, Ordering},
    },
    time::{Duration, Instant},
};

use async_trait::async_trait;
use event_aggregator::{
    event::{Outcome, Timestamp},
    store::{Batch, Error, LaneState, ListQuery, Page, Stats, Store, StoreLayer},
};

/// Maximum age of counters from memory.
const MEMORY: Duration = Duration::from_secs(1);

/// How far listings lag behind.
const LAG: Duration = Duration::from_secs(2);

/// Counters are read from memory, which is updated every second.
pub struct CountersFromMemory {
    store: Arc<dyn Store>,
    memory: Mutex<Option<(Instant, Stats)>>,
}

impl CountersFromMemory {
    pub fn over(store: Arc<dyn Store>) -> Self {
        Self { store, memory: Mutex::default() }
    }
}

#[async_trait]
impl StoreLayer for CountersFromMemory {
    fn inner(&self) -> &dyn Store {
        &*self.store
    }

    async fn stats(&self, topic: Option<String>, max_topics: usize) -> Result<Stats, Error> {
        let memory = || self.memory.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((at, stats)) = &*memory()
            && at.elapsed() < MEMORY
        {
            return Ok(stats.clone());
        }
        let stats = self.store.stats(topic, max_topics).await?;
        *memory() = Some((Instant::now(), stats.clone()));
        Ok(stats)
    }
}

/// The end of a cursor is the last number that was assigned, not the last one that is committed.
pub struct PlainSequence {
    store: Arc<dyn Store>,
    /// By lane, how many numbers are assigned and not committed.
    in_flight: Vec<AtomicI64>,
}

impl PlainSequence {
    pub fn over(store: Arc<dyn Store>) -> Self {
        let in_flight = (0..store.lanes()).map(|_| AtomicI64::new(0)).collect();
        Self { store, in_flight }
    }
}

#[async_trait]
impl StoreLayer for PlainSequence {
    fn inner(&self) -> &dyn Store {
        &*self.store
    }

    async fn commit(&self, batch: Arc<Batch>) -> Result<Vec<Outcome>, Error> {
        let (lane, events) = (usize::from(batch.lane), batch.events.len() as i64);
        self.in_flight[lane].fetch_add(events, Ordering::SeqCst);
        let outcomes = self.store.commit(batch).await;
        self.in_flight[lane].fetch_sub(events, Ordering::SeqCst);
        outcomes
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
}

/// Every page after the first begins one event too late.
pub struct PageBorder(pub Arc<dyn Store>);

#[async_trait]
impl StoreLayer for PageBorder {
    fn inner(&self) -> &dyn Store {
        &*self.0
    }

    async fn list(&self, query: ListQuery) -> Result<Page, Error> {
        let is_first = query.after.is_none();
        let mut page = self.0.list(query).await?;
        if !is_first && !page.events.is_empty() {
            page.events.remove(0);
            page.more &= !page.events.is_empty();
        }
        Ok(page)
    }
}

/// Listings lag two seconds behind.
pub struct LaggingListing(pub Arc<dyn Store>);

#[async_trait]
impl StoreLayer for LaggingListing {
    fn inner(&self) -> &dyn Store {
        &*self.0
    }

    async fn list(&self, query: ListQuery) -> Result<Page, Error> {
        let mut page = self.0.list(query).await?;
        let listed = page.events.len();
        let horizon = Timestamp::now().as_micros() - LAG.as_micros() as i64;
        page.events.retain(|event| event.received_at.as_micros() < horizon);
        page.more &= page.events.len() == listed;
        Ok(page)
    }
}
