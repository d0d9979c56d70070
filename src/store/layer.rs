//! Stores that wrap another store and change some of its operations.

use std::sync::Arc;

use async_trait::async_trait;
use uuid::Uuid;

use super::{Batch, Error, FeedQuery, Found, LaneState, ListQuery, Page, Place, Stats, Store};
use crate::event::{EventKey, Outcome};

/// A [`Store`] on top of another one. Each method is the one of [`Store`] with the same name and
/// forwards to [`StoreLayer::inner`] unless it is overridden.
#[async_trait]
#[allow(missing_docs)]
pub trait StoreLayer: Send + Sync {
    /// The wrapped store.
    fn inner(&self) -> &dyn Store;

    fn id(&self) -> Uuid {
        self.inner().id()
    }

    fn location(&self) -> &str {
        self.inner().location()
    }

    fn lanes(&self) -> u16 {
        self.inner().lanes()
    }

    async fn commit(&self, batch: Arc<Batch>) -> Result<Vec<Outcome>, Error> {
        self.inner().commit(batch).await
    }

    async fn list(&self, query: ListQuery) -> Result<Page, Error> {
        self.inner().list(query).await
    }

    async fn get(&self, keys: Vec<EventKey>, max_bytes: usize) -> Result<Found, Error> {
        self.inner().get(keys, max_bytes).await
    }

    async fn stats(&self, topic: Option<String>, max_topics: usize) -> Result<Stats, Error> {
        self.inner().stats(topic, max_topics).await
    }

    async fn heads(&self, at: Vec<i64>) -> Result<Vec<LaneState>, Error> {
        self.inner().heads(at).await
    }

    async fn read(&self, query: FeedQuery) -> Result<Page, Error> {
        self.inner().read(query).await
    }

    async fn positions_at(&self, place: Place) -> Result<Vec<i64>, Error> {
        self.inner().positions_at(place).await
    }

    async fn ping(&self) -> Result<(), Error> {
        self.inner().ping().await
    }

    async fn close(&self) {
        self.inner().close().await;
    }
}

#[async_trait]
impl<L: StoreLayer> Store for L {
    fn id(&self) -> Uuid {
        StoreLayer::id(self)
    }

    fn location(&self) -> &str {
        StoreLayer::location(self)
    }

    fn lanes(&self) -> u16 {
        StoreLayer::lanes(self)
    }

    async fn commit(&self, batch: Arc<Batch>) -> Result<Vec<Outcome>, Error> {
        StoreLayer::commit(self, batch).await
    }

    async fn list(&self, query: ListQuery) -> Result<Page, Error> {
        StoreLayer::list(self, query).await
    }

    async fn get(&self, keys: Vec<EventKey>, max_bytes: usize) -> Result<Found, Error> {
        StoreLayer::get(self, keys, max_bytes).await
    }

    async fn stats(&self, topic: Option<String>, max_topics: usize) -> Result<Stats, Error> {
        StoreLayer::stats(self, topic, max_topics).await
    }

    async fn heads(&self, at: Vec<i64>) -> Result<Vec<LaneState>, Error> {
        StoreLayer::heads(self, at).await
    }

    async fn read(&self, query: FeedQuery) -> Result<Page, Error> {
        StoreLayer::read(self, query).await
    }

    async fn positions_at(&self, place: Place) -> Result<Vec<i64>, Error> {
        StoreLayer::positions_at(self, place).await
    }

    async fn ping(&self) -> Result<(), Error> {
        StoreLayer::ping(self).await
    }

    async fn close(&self) {
        StoreLayer::close(self).await;
    }
}
