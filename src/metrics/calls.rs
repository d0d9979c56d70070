//! Metrics of gRPC calls, with the names and labels of
//! [go-grpc-middleware](https://github.com/grpc-ecosystem/go-grpc-middleware), so that existing
//! dashboards and alerts for gRPC servers work.

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, histogram::Histogram},
    registry::{Registry, Unit},
};

use super::CALL_BUCKETS;

/// Names of the gRPC status codes in Go's spelling, by number.
const CODES: [&str; 17] = [
    "OK",
    "Canceled",
    "Unknown",
    "InvalidArgument",
    "DeadlineExceeded",
    "NotFound",
    "AlreadyExists",
    "PermissionDenied",
    "ResourceExhausted",
    "FailedPrecondition",
    "Aborted",
    "OutOfRange",
    "Unimplemented",
    "Internal",
    "Unavailable",
    "DataLoss",
    "Unauthenticated",
];

/// Metrics of all calls. Clones share them.
#[derive(Debug, Clone)]
pub struct Calls {
    started: Family<Labels, Counter>,
    handled: Family<HandledLabels, Counter>,
    received: Family<Labels, Counter>,
    sent: Family<Labels, Counter>,
    seconds: Family<Labels, Histogram, fn() -> Histogram>,
}

/// Metrics of the calls of one method.
#[derive(Debug, Clone)]
pub struct Method {
    /// Started calls.
    pub started: Counter,
    /// Received messages.
    pub received: Counter,
    /// Sent messages.
    pub sent: Counter,
    /// Duration of calls, in seconds.
    pub seconds: Histogram,
    handled: Vec<Counter>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Labels {
    grpc_type: &'static str,
    grpc_service: String,
    grpc_method: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct HandledLabels {
    grpc_type: &'static str,
    grpc_service: String,
    grpc_method: String,
    grpc_code: &'static str,
}

impl Calls {
    pub(super) fn register(registry: &mut Registry) -> Self {
        let calls = Self {
            started: Family::default(),
            handled: Family::default(),
            received: Family::default(),
            sent: Family::default(),
            seconds: Family::new_with_constructor(|| Histogram::new(CALL_BUCKETS)),
        };
        let registry = registry.sub_registry_with_prefix("grpc_server");
        registry.register("started", "RPCs started on the server", calls.started.clone());
        registry.register(
            "handled",
            "RPCs completed on the server, by status code",
            calls.handled.clone(),
        );
        registry.register(
            "msg_received",
            "Messages received by the server",
            calls.received.clone(),
        );
        registry.register("msg_sent", "Messages sent by the server", calls.sent.clone());
        let help = "Duration of RPCs";
        registry.register_with_unit("handling", help, Unit::Seconds, calls.seconds.clone());
        calls
    }

    /// The metrics of one method, exported from now on. `kind` is `unary`, `client_stream`,
    /// `server_stream` or `bidi_stream`.
    pub fn method(&self, kind: &'static str, service: &str, method: &str) -> Method {
        let (grpc_service, grpc_method) = (service.to_owned(), method.to_owned());
        let labels = Labels { grpc_type: kind, grpc_service, grpc_method };
        let handled = CODES.iter().map(|code| {
            self.handled.get_or_create_owned(&HandledLabels {
                grpc_type: kind,
                grpc_service: service.to_owned(),
                grpc_method: method.to_owned(),
                grpc_code: code,
            })
        });
        Method {
            started: self.started.get_or_create_owned(&labels),
            received: self.received.get_or_create_owned(&labels),
            sent: self.sent.get_or_create_owned(&labels),
            seconds: self.seconds.get_or_create_owned(&labels),
            handled: handled.collect(),
        }
    }
}

impl Method {
    /// Counts a call that ended with a status code, and returns the name of the code.
    pub fn handled(&self, code: usize) -> &'static str {
        const UNKNOWN: usize = 2;
        let code = if code < CODES.len() { code } else { UNKNOWN };
        self.handled[code].inc();
        CODES[code]
    }
}
