//! `GET /metrics`: the metrics, brought up to date first.

use axum::{extract::State, http::header::CONTENT_TYPE, response::IntoResponse};

use super::{access::Caller, error::Error};
use crate::{access::Verb, ingest::ProcessCounters, metrics::Events, service::Service};

pub(super) async fn metrics(
    Caller(caller): Caller,
    State(service): State<Service>,
) -> Result<impl IntoResponse, Error> {
    caller.demand_all(Verb::Admin).map_err(Error::access)?;
    let metrics = &service.metrics;
    let ProcessCounters { judged, rejected } = service.ingest.counters();
    metrics.set_events(Events {
        accepted: judged.unique_processed,
        duplicate: judged.duplicate_dropped - judged.conflicts,
        conflict: judged.conflicts,
        rejected,
    });
    for (lane, requests) in (0..).zip(service.ingest.waiting()) {
        metrics.set_queue_depth(lane, requests);
    }
    metrics.queue_bytes.set(service.ingest.waiting_bytes() as i64);
    metrics.calls_in_progress.set(service.load.calls() as i64);
    metrics.reading_bytes.set(service.load.reading_bytes() as i64);
    metrics.answer_bytes.set(service.load.answer_bytes() as i64);
    metrics.subscription_bytes.set(service.load.subscription_bytes() as i64);
    metrics.subscribers.set(service.feed.subscribers() as i64);
    let openmetrics = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    Ok(([(CONTENT_TYPE, openmetrics)], metrics.text()))
}
