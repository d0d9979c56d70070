//! `GET /metrics`: the metrics, brought up to date first.

use axum::{extract::State, http::header::CONTENT_TYPE, response::IntoResponse};

use super::Http;
use crate::{ingest::ProcessCounters, metrics::Events};

pub(super) async fn metrics(State(http): State<Http>) -> impl IntoResponse {
    let metrics = &http.metrics;
    let ProcessCounters { judged, rejected } = http.ingest.counters();
    metrics.set_events(Events {
        accepted: judged.unique_processed,
        duplicate: judged.duplicate_dropped - judged.conflicts,
        conflict: judged.conflicts,
        rejected,
    });
    for (lane, requests) in (0..).zip(http.ingest.waiting()) {
        metrics.set_queue_depth(lane, requests);
    }
    metrics.queue_bytes.set(http.ingest.waiting_bytes() as i64);
    metrics.subscribers.set(http.feed.subscribers() as i64);
    let openmetrics = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    ([(CONTENT_TYPE, openmetrics)], metrics.text())
}
