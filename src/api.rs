//! The use cases of the service, independent of the protocol: publishing, querying and subscribing.
//! Each validates, authorizes, applies the rate limit of the caller, and then reads or writes. The
//! protocols encode and decode.

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

pub(crate) use self::{
    error::Error,
    publish::{Decoded, EventResult, OnInvalid, Producer, Published, Submitted},
    query::StatsReport,
    subscribe::Subscriber,
};
pub use self::{
    error::Reason,
    query::{ListRequest, Listed},
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
    /// The event store.
    pub store: Arc<dyn Store>,
    /// The feed of stored events in commit order.
    pub feed: Feed,
    /// Prometheus metrics.
    pub metrics: Metrics,
    /// Limits on concurrent calls, requests and responses.
    pub admission: Admission,
    /// Whether the last health check of the store succeeded.
    pub store_answers: Arc<AtomicBool>,
    /// When the service started.
    pub started: Instant,
    /// Cancelled when the service shuts down.
    pub stopping: CancellationToken,
}

impl Api {
    /// Starts the write path and the feed of a store, without access control.
    pub fn start(store: Arc<dyn Store>, metrics: Metrics) -> Self {
        let ingest = Ingest::start(&store);
        let admission = Admission::default();
        let feed = Feed::start(&store, ingest.committed(), admission.clone());
        let (started, stopping) = (Instant::now(), CancellationToken::new());
        let access = Access::default();
        let store_answers = Arc::new(AtomicBool::new(true));
        Self { ingest, access, store, feed, metrics, admission, store_answers, started, stopping }
    }

    /// Whether events can be published and read. Cheap, because it only reads flags.
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
