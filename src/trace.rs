//! Spans of calls and commits, exported with OpenTelemetry (OTLP). They have a target of their own,
//! which the log filters out; without a collector a span costs one check of a flag.

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

/// Target of all spans.
pub(crate) const TARGET: &str = "event_aggregator::trace";

/// Environment variables with the address of the collector. Tracing is off if none is set.
const ENDPOINTS: [&str; 2] = ["OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"];

/// Exports spans to the configured collector.
#[derive(Debug)]
pub(crate) struct Exporter(SdkTracerProvider);

impl Exporter {
    /// Returns `None` if no collector is configured. Must be called within the runtime.
    pub(crate) fn from_env() -> Result<Option<Self>, ExporterBuildError> {
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

    /// The tracer that exports spans.
    pub(crate) fn tracer(&self) -> Tracer {
        self.0.tracer("event-aggregator")
    }

    /// Exports the remaining spans. Blocks for some seconds if the collector does not respond.
    pub(crate) fn close(self) {
        if let Err(error) = self.0.shutdown() {
            tracing::warn!(%error, "failed to export the last spans");
        }
    }
}

/// The span of a call, as part of the trace in its headers, if there is one. Its status code is
/// recorded when the call ends.
pub(crate) fn call(name: &str, headers: &HeaderMap) -> Span {
    let span = info_span!(
        target: TARGET,
        "call",
        otel.name = name,
        otel.kind = "server",
        rpc.response.status_code = Empty,
        http.response.status_code = Empty,
    );
    if !span.is_disabled() {
        // Fails only for a span that was entered.
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
