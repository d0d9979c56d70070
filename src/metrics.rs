//! All metrics of `GET /metrics`. Other modules count in here, or are read when metrics are
//! scraped. Label values are bounded: none comes from an event or a caller, and the names of
//! identities come from the operator.

use std::sync::{Arc, atomic::Ordering};

use prometheus_client::{
    encoding::{EncodeLabelSet, text},
    metrics::{
        counter::Counter,
        family::Family,
        gauge::{ConstGauge, Gauge},
        histogram::Histogram,
        info::Info,
    },
    registry::{Registry, Unit},
};

use crate::limits::{MAX_BATCH_EVENTS, MAX_QUEUE_BYTES};

pub(crate) use calls::{Calls, Method};
pub(crate) use http::HttpRequests;

mod calls;
mod http;
mod panics;

/// Buckets of the call duration histograms, in seconds: from a single publish to a wait for the
/// store.
const CALL_BUCKETS: [f64; 14] =
    [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 60.0];

/// Buckets of the commit duration histogram, in seconds: up to [`crate::limits::COMMIT_TIMEOUT`].
const COMMIT_BUCKETS: [f64; 14] =
    [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 20.0];

/// The metrics of one service. Clones share them.
#[derive(Debug, Clone)]
pub struct Metrics {
    /// Metrics of gRPC calls.
    pub calls: Calls,
    /// HTTP requests.
    pub http: HttpRequests,
    /// Events per committed batch.
    pub batch_size: Histogram,
    /// Duration of successful commits, in seconds.
    pub commit_seconds: Histogram,
    /// Open connections.
    pub connections: Gauge,
    /// Connections rejected by the connection limit.
    pub connections_refused: Counter,
    /// Active subscriptions.
    pub subscribers: Gauge,
    /// Calls in progress.
    pub calls_in_progress: Gauge,
    /// Bytes of large requests while they are received.
    pub reading_bytes: Gauge,
    /// Bytes of large responses until they are sent.
    pub answer_bytes: Gauge,
    /// Bytes of events until they are sent to subscribers.
    pub subscription_bytes: Gauge,
    /// Bytes of events waiting to be committed.
    pub queue_bytes: Gauge,
    events: Family<Outcome, Counter>,
    rate_exceeded: Family<Identity, Counter>,
    store_errors: Family<StoreError, Counter>,
    queue_depth: Family<Lane, Gauge>,
    registry: Arc<Registry>,
}

/// Events by outcome, since the start of the process.
#[derive(Debug, Clone, Copy)]
pub struct Events {
    /// New, and stored.
    pub accepted: i64,
    /// Already stored, with the same content.
    pub duplicate: i64,
    /// Already stored, with different content.
    pub conflict: i64,
    /// Invalid.
    pub rejected: i64,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Outcome {
    outcome: &'static str,
}

/// Label with an identity, named by the operator's access file.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Identity {
    identity: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StoreError {
    call: &'static str,
    kind: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Lane {
    lane: u16,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Build {
    version: &'static str,
}

impl Default for Metrics {
    fn default() -> Self {
        let mut registry = Registry::default();
        let calls = Calls::register(&mut registry);
        let http = HttpRequests::register(&mut registry);
        let own = registry.sub_registry_with_prefix("event_aggregator");

        let batch_sizes = (0..).map(|power| f64::from(1_u32 << power));
        let batch_sizes = batch_sizes.take_while(|size| *size <= MAX_BATCH_EVENTS as f64);
        let batch_size = Histogram::new(batch_sizes);
        own.register("batch_size", "Events per committed batch", batch_size.clone());
        let commit_seconds = Histogram::new(COMMIT_BUCKETS);
        let help = "Time to commit a batch";
        own.register_with_unit("commit", help, Unit::Seconds, commit_seconds.clone());
        let connections = Gauge::default();
        own.register("connections", "Open connections", connections.clone());
        let connections_refused = Counter::default();
        let help = "Connections rejected by the connection limit";
        own.register("connections_refused", help, connections_refused.clone());
        own.register("panics", "Panics", panics::counter());
        let subscribers = Gauge::default();
        own.register("subscribers", "Active subscriptions to the feed", subscribers.clone());
        let calls_in_progress = Gauge::default();
        own.register("calls_in_progress", "Calls in progress", calls_in_progress.clone());
        let reading_bytes = Gauge::default();
        let help = "Memory held by large requests while they are received";
        own.register_with_unit("reading", help, Unit::Bytes, reading_bytes.clone());
        let answer_bytes = Gauge::default();
        let help = "Memory held by large responses until they are sent";
        own.register_with_unit("answer", help, Unit::Bytes, answer_bytes.clone());
        let subscription_bytes = Gauge::default();
        let help = "Memory held by events until they are sent to subscribers";
        own.register_with_unit("subscription", help, Unit::Bytes, subscription_bytes.clone());
        let queue_bytes = Gauge::default();
        let help = "Memory held by events waiting to be committed";
        own.register_with_unit("queue", help, Unit::Bytes, queue_bytes.clone());
        let limit = ConstGauge::new(MAX_QUEUE_BYTES as u64);
        own.register_with_unit("queue_limit", "Capacity of the ingest queue", Unit::Bytes, limit);
        let events = Family::default();
        own.register("events", "Events by outcome", events.clone());
        let rate_exceeded = Family::default();
        let help = "Events rejected by the rate limit of their identity";
        own.register("rate_exceeded_events", help, rate_exceeded.clone());
        let store_errors = Family::default();
        let help = "Failed store operations, retries included";
        own.register("store_errors", help, store_errors.clone());
        let queue_depth = Family::default();
        let help = "Requests waiting to be committed";
        own.register("queue_depth", help, queue_depth.clone());
        let build = Build { version: env!("CARGO_PKG_VERSION") };
        own.register("build", "Build information", Info::new(build));

        Self {
            calls,
            http,
            batch_size,
            commit_seconds,
            connections,
            connections_refused,
            subscribers,
            calls_in_progress,
            reading_bytes,
            answer_bytes,
            subscription_bytes,
            queue_bytes,
            events,
            rate_exceeded,
            store_errors,
            queue_depth,
            registry: Arc::new(registry),
        }
    }
}

impl Metrics {
    /// Sets the event counters.
    pub fn set_events(&self, events: Events) {
        let outcomes = [
            ("accepted", events.accepted),
            ("duplicate", events.duplicate),
            ("conflict", events.conflict),
            ("rejected", events.rejected),
        ];
        for (outcome, count) in outcomes {
            let counter = self.events.get_or_create_owned(&Outcome { outcome });
            // A concurrent scrape may have set later counts.
            counter.inner().fetch_max(u64::try_from(count).unwrap_or_default(), Ordering::Relaxed);
        }
    }

    /// Counts events rejected by the rate limit of an identity.
    pub fn rate_exceeded(&self, identity: &str, events: usize) {
        let identity = Identity { identity: identity.to_owned() };
        self.rate_exceeded.get_or_create_owned(&identity).inc_by(events as u64);
    }

    /// Sets the number of requests waiting in a lane.
    pub fn set_queue_depth(&self, lane: u16, requests: usize) {
        self.queue_depth.get_or_create_owned(&Lane { lane }).set(requests as i64);
    }

    /// Counter of failed operations of the store. It starts at 0, because no rate can be computed
    /// for a counter that appears with 1.
    pub fn store_errors(&self, call: &'static str, kind: &'static str) -> Counter {
        self.store_errors.get_or_create_owned(&StoreError { call, kind })
    }

    /// All metrics, in the OpenMetrics text format.
    pub fn text(&self) -> String {
        let mut text = String::new();
        // Writing to memory cannot fail.
        let _ = text::encode(&mut text, &self.registry);
        text
    }
}
