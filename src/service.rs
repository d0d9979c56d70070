//! What the edges have in common: a service over one store. It has no calls of its own; each edge
//! translates its own to what is in here.

use std::{
    panic::resume_unwind,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Instant,
};

use tokio_util::sync::CancellationToken;

use crate::{
    access::{self, Access, CallerKey, Identity},
    feed::Feed,
    ingest::Ingest,
    load::Load,
    metrics::Metrics,
    store::{self, ListQuery, Page, Store},
};

/// A running service. Clones are handles to the same one.
#[derive(Clone)]
pub struct Service {
    /// The write path.
    pub ingest: Ingest,
    /// Who may do what.
    pub access: Access,
    /// Where events are kept.
    pub store: Arc<dyn Store>,
    /// Events as they are stored.
    pub feed: Feed,
    /// What is counted for Prometheus.
    pub metrics: Metrics,
    /// What it has taken on, so that it does not take on too much.
    pub load: Load,
    /// Whether the store answered when it was asked last, which is every few seconds.
    pub store_answers: Arc<AtomicBool>,
    /// When it started.
    pub started: Instant,
    /// Cancelled when streams are to end.
    pub stopping: CancellationToken,
}

impl Service {
    /// Starts the write path and the feed of a store. Everybody may do everything.
    pub fn start(store: Arc<dyn Store>, metrics: Metrics) -> Self {
        let ingest = Ingest::start(&store);
        let load = Load::default();
        let feed = Feed::start(&store, ingest.committed(), load.clone());
        let (started, stopping) = (Instant::now(), CancellationToken::new());
        let access = Access::default();
        let store_answers = Arc::new(AtomicBool::new(true));
        Self { ingest, access, store, feed, metrics, load, store_answers, started, stopping }
    }

    /// Whether events would be taken in and found. Asks nobody, so that any number may ask.
    pub fn is_ready(&self) -> bool {
        !self.stopping.is_cancelled()
            && self.ingest.is_flowing()
            && self.store_answers.load(Ordering::Relaxed)
    }

    /// Lists a page for a caller. A filter by source makes the store scan, so such listings wait for
    /// their turn.
    pub async fn list(&self, caller: &CallerKey, query: ListQuery) -> Result<Page, store::Error> {
        if query.filter.source.is_none() {
            return self.store.list(query).await;
        }
        let busy = || store::Error::Timeout("too many listings by source at the same time".into());
        let permit = self.load.scan(caller).await.ok_or_else(busy)?;
        let store = Arc::clone(&self.store);
        // The store goes on although the caller is gone, and so long the permit is used.
        let listing = tokio::spawn(async move {
            let page = store.list(query).await;
            drop(permit);
            page
        });
        match listing.await {
            Ok(page) => page,
            Err(error) => match error.try_into_panic() {
                Ok(panic) => resume_unwind(panic),
                Err(error) => Err(store::Error::Unavailable(error.into())),
            },
        }
    }

    /// Takes so many events off the rate of whoever sends them, and counts them if they come too fast.
    pub fn spend(&self, caller: &Identity, events: usize) -> Result<(), access::Error> {
        caller.spend(events).inspect_err(|_| {
            if let Some(name) = caller.name() {
                self.metrics.rate_exceeded(name, events);
            }
        })
    }
}
