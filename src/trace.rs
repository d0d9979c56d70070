//! Spans of calls and commits, for whoever collects traces by OTLP. They are made under a target of
//! their own, which the log leaves out: without a collector a span costs a look at a flag.

use axum::http::HeaderMap;
use opentelemetry::{
    KeyValue,
    propagation::{Extractor, TextMapPropagator},
    trace::TracerProvider as _,
};
use opentelemetry_otlp::{ExporterBuildError, SpanExporter};
use opentelemetry_sdk::{
    Resource,
    propagation::TraceContextPropagator,
    trace::{SdkTracerProvider, Tracer},
};
use tracing::{Span, field::Empty, info_span};
use tracing_opentelemetry::OpenTelemetrySpanExt;

/// The target of all spans.
pub const TARGET: &str = "event_aggregator::trace";

/// Where traces are sent, by the names that OpenTelemetry gives to it. Anything unset means nowhere.
const ENDPOINTS: [&str; 2] = ["OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"];

/// Sends spans to the collector that the environment names.
#[derive(Debug)]
pub struct Exporter(SdkTracerProvider);

impl Exporter {
    /// None if the environment names no collector. Must be called inside the runtime.
    pub fn from_env() -> Result<Option<Self>, ExporterBuildError> {
        let is_set = |name| std::env::var(name).is_ok_and(|endpoint| !endpoint.is_empty());
        if !ENDPOINTS.into_iter().any(is_set) {
            return Ok(None);
        }
        let exporter = SpanExporter::builder().with_tonic().build()?;
        let name = std::env::var("OTEL_SERVICE_NAME");
        let resource = Resource::builder()
            .with_service_name(name.unwrap_or_else(|_| "event-aggregator".to_owned()))
            .with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION")))
            .build();
        let provider = SdkTracerProvider::builder()
            .with_batch_exporter(exporter)
            .with_resource(resource)
            .build();
        Ok(Some(Self(provider)))
    }

    /// What turns spans into those that are sent.
    pub fn tracer(&self) -> Tracer {
        self.0.tracer("event-aggregator")
    }

    /// Sends what is left. Blocks for some seconds if the collector does not answer.
    pub fn close(self) {
        if let Err(error) = self.0.shutdown() {
            tracing::warn!(%error, "failed to export the last spans");
        }
    }
}

/// The span of a call that somebody made, who may have said which trace it belongs to. Whoever answers
/// records the code.
pub fn call(name: &str, headers: &HeaderMap) -> Span {
    let span = info_span!(
        target: TARGET,
        "call",
        otel.name = name,
        otel.kind = "server",
        rpc.response.status_code = Empty,
        http.response.status_code = Empty,
    );
    if !span.is_disabled() {
        // Fails only for a span that has begun.
        let _ = span.set_parent(TraceContextPropagator::new().extract(&Headers(headers)));
    }
    span
}

struct Headers<'a>(&'a HeaderMap);

impl Extractor for Headers<'_> {
    fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name)?.to_str().ok()
    }

    fn keys(&self) -> Vec<&str> {
        self.0.keys().map(|name| name.as_str()).collect()
    }
}
