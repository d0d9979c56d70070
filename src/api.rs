//! The use cases of the service, the same for every protocol: publishing, querying and subscribing. Each
//! validates, authorizes, applies the rate limit of the caller, and then reads or writes. What a request
//! and its response look like is left to the protocols.

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
    admission::Admission,
    feed::Feed,
    ingest::Ingest,
    metrics::Metrics,
    store::Store,
};

pub use self::{
    error::{Error, Reason},
    publish::{Decoded, EventResult, OnInvalid, Producer, Published, Submitted},
    query::{ListRequest, Listed, LookedUp, StatsReport},
    subscribe::Subscriber,
};

mod error;
mod publish;
mod query;
mod subscribe;

/// The running service. Clones are handles to the same one.
#[derive(Clone)]
pub struct Api {
    /// The write path.
    pub ingest: Ingest,
    /// Authentication and authorization.
    pub access: Access,
    /// Where events are stored.
    pub store: Arc<dyn Store>,
    /// Stored events, in the order of their commits.
    pub feed: Feed,
    /// What is counted for Prometheus.
    pub metrics: Metrics,
    /// The limits on what is in progress at the same time.
    pub admission: Admission,
    /// Whether the store answered the last health check.
    pub store_answers: Arc<AtomicBool>,
    /// When the service started.
    pub started: Instant,
    /// Cancelled when the service shuts down.
    pub stopping: CancellationToken,
}

impl Api {
    /// Starts the write path and the feed of a store. All callers may do everything.
    pub fn start(store: Arc<dyn Store>, metrics: Metrics) -> Self {
        let ingest = Ingest::start(&store);
        let admission = Admission::default();
        let feed = Feed::start(&store, ingest.committed(), admission.clone());
        let (started, stopping) = (Instant::now(), CancellationToken::new());
        let access = Access::default();
        let store_answers = Arc::new(AtomicBool::new(true));
        Self { ingest, access, store, feed, metrics, admission, store_answers, started, stopping }
    }

    /// Whether events can be published and read. Reads flags only, so that it may be asked at any rate.
    pub fn is_ready(&self) -> bool {
        !self.stopping.is_cancelled()
            && self.ingest.is_flowing()
            && self.store_answers.load(Ordering::Relaxed)
    }

    /// Applies the rate limit of an identity to some events.
    fn acquire_rate(&self, identity: &Identity, events: usize) -> Result<(), access::Error> {
        identity.spend(events).inspect_err(|_| {
            if let Some(name) = identity.name() {
                self.metrics.rate_exceeded(name, events);
            }
        })
    }
}
