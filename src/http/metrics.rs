//! `GET /metrics`.

use axum::{Extension, extract::State, http::header::CONTENT_TYPE, response::IntoResponse};

use crate::{
    access::{Caller, Verb},
    api::{Api, Error},
    ingest::ProcessCounters,
    metrics::Events,
};

pub(super) async fn metrics(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
) -> Result<impl IntoResponse, Error> {
    caller.identity.demand_all(Verb::Admin)?;
    let metrics = &api.metrics;
    let ProcessCounters { judged, rejected } = api.ingest.counters();
    metrics.set_events(Events {
        accepted: judged.unique_processed,
        duplicate: judged.duplicate_dropped - judged.conflicts,
        conflict: judged.conflicts,
        rejected,
    });
    for (lane, requests) in (0..).zip(api.ingest.waiting()) {
        metrics.set_queue_depth(lane, requests);
    }
    metrics.queue_bytes.set(api.ingest.waiting_bytes() as i64);
    metrics.calls_in_progress.set(api.admission.calls() as i64);
    metrics.reading_bytes.set(api.admission.reading_bytes() as i64);
    metrics.answer_bytes.set(api.admission.answer_bytes() as i64);
    metrics.subscription_bytes.set(api.admission.subscription_bytes() as i64);
    metrics.subscribers.set(api.feed.subscribers() as i64);
    let openmetrics = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    Ok(([(CONTENT_TYPE, openmetrics)], metrics.text()))
}
