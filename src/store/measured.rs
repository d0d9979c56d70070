//! A store with metrics: duration and size of commits, and failed operations.

use std::{sync::Arc, time::Instant};

use async_trait::async_trait;

use super::{
    Batch, Error, FeedQuery, Found, LaneState, ListQuery, Page, Place, Stats, Store, StoreLayer,
};
use crate::{
    event::{EventKey, Outcome},
    metrics::Metrics,
};

/// Operations that can fail.
const CALLS: [&str; 8] =
    ["commit", "list", "get", "stats", "heads", "read", "positions_at", "ping"];

/// Kinds of failures.
const KINDS: [&str; 5] = ["unavailable", "unknown", "timeout", "refused", "wrong_store"];

/// Wraps a store and records its metrics.
pub struct MeasuredStore {
    store: Arc<dyn Store>,
    metrics: Metrics,
}

impl MeasuredStore {
    /// Wraps a store.
    pub fn new(store: Arc<dyn Store>, metrics: Metrics) -> Self {
        for call in CALLS {
            KINDS.iter().for_each(|kind| drop(metrics.store_errors(call, kind)));
        }
        Self { store, metrics }
    }

    fn counted<T>(&self, call: &'static str, result: Result<T, Error>) -> Result<T, Error> {
        result.inspect_err(|error| {
            let [unavailable, unknown, timeout, refused, wrong_store] = KINDS;
            let kind = match error {
                Error::Unavailable(_) | Error::Fault(_) => unavailable,
                Error::Unknown(_) => unknown,
                Error::Timeout(_) => timeout,
                Error::Refused(_) => refused,
                Error::WrongStore(_) => wrong_store,
                // Not a failure: the batch is committed in parts.
                Error::TooMuch { .. } => return,
            };
            self.metrics.store_errors(call, kind).inc();
        })
    }
}

#[async_trait]
impl StoreLayer for MeasuredStore {
    fn inner(&self) -> &dyn Store {
        &*self.store
    }

    async fn commit(&self, batch: Arc<Batch>) -> Result<Vec<Outcome>, Error> {
        let (events, begun) = (batch.events.len(), Instant::now());
        let outcomes = self.counted("commit", self.store.commit(batch).await)?;
        self.metrics.commit_seconds.observe(begun.elapsed().as_secs_f64());
        self.metrics.batch_size.observe(events as f64);
        Ok(outcomes)
    }

    async fn list(&self, query: ListQuery) -> Result<Page, Error> {
        self.counted("list", self.store.list(query).await)
    }

    async fn get(&self, keys: Vec<EventKey>, max_bytes: usize) -> Result<Found, Error> {
        self.counted("get", self.store.get(keys, max_bytes).await)
    }

    async fn stats(&self, topic: Option<String>, max_topics: usize) -> Result<Stats, Error> {
        self.counted("stats", self.store.stats(topic, max_topics).await)
    }

    async fn heads(&self, at: Vec<i64>) -> Result<Vec<LaneState>, Error> {
        self.counted("heads", self.store.heads(at).await)
    }

    async fn read(&self, query: FeedQuery) -> Result<Page, Error> {
        self.counted("read", self.store.read(query).await)
    }

    async fn positions_at(&self, place: Place) -> Result<Vec<i64>, Error> {
        self.counted("positions_at", self.store.positions_at(place).await)
    }

    async fn ping(&self) -> Result<(), Error> {
        self.counted("ping", self.store.ping().await)
    }
}
