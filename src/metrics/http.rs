//! Metrics of HTTP requests, by the
//! [semantic conventions of OpenTelemetry](https://opentelemetry.io/docs/specs/semconv/http/http-metrics/).

use std::time::Duration;

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{family::Family, histogram::Histogram},
    registry::{Registry, Unit},
};

use super::CALL_BUCKETS;

/// Metrics of all requests. Clones are handles to the same ones.
#[derive(Debug, Clone)]
pub struct HttpRequests(Family<Labels, Histogram, fn() -> Histogram>);

/// All values come from the program: unknown methods and routes have one name.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Labels {
    http_request_method: &'static str,
    http_route: String,
    http_response_status_code: u16,
}

impl HttpRequests {
    pub(super) fn register(registry: &mut Registry) -> Self {
        let durations: Family<_, _, fn() -> Histogram> =
            Family::new_with_constructor(|| Histogram::new(CALL_BUCKETS));
        let help = "Duration of HTTP requests, until the end of their response";
        let registry = registry.sub_registry_with_prefix("http_server");
        registry.register_with_unit("request_duration", help, Unit::Seconds, durations.clone());
        Self(durations)
    }

    /// Counts a request that has ended. `route` is a pattern and never a path.
    pub fn observe(&self, method: &'static str, route: String, status: u16, duration: Duration) {
        let labels = Labels {
            http_request_method: method,
            http_route: route,
            http_response_status_code: status,
        };
        self.0.get_or_create_owned(&labels).observe(duration.as_secs_f64());
    }
}
