//! What the edges have in common: a service over one store. It has no calls of its own; each edge
//! translates its own to what is in here.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Instant,
};

use tokio_util::sync::CancellationToken;

use crate::{
    access::{self, Access, Identity},
    feed::Feed,
    ingest::Ingest,
    load::Load,
    metrics::Metrics,
    store::Store,
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

    /// Takes so many events off the rate of whoever sends them, and counts them if they come too fast.
    pub fn spend(&self, caller: &Identity, events: usize) -> Result<(), access::Error> {
        caller.spend(events).inspect_err(|_| {
            if let Some(name) = caller.name() {
                self.metrics.rate_exceeded(name, events);
            }
        })
    }
}
