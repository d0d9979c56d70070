//! Plain HTTP with JSON on the port of the contract, for curl and browsers. It calls the same write path
//! and the same store, and answers what the contract answers.

use std::{sync::Arc, time::Instant};

use axum::{
    Json, Router,
    extract::{DefaultBodyLimit, MatchedPath, Request, State},
    http::{HeaderMap, StatusCode, header::CONTENT_TYPE},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use serde_json::json;
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

use self::error::Error;
use crate::{
    feed::Feed, ingest::Ingest, limits::MAX_REQUEST_BYTES, metrics::Metrics, store::Store, trace,
};

mod cloudevent;
mod dashboard;
mod error;
mod event;
mod fields;
mod metrics;
mod publish;
mod query;
mod stream;

/// What the calls work on. Cheap to clone.
#[derive(Clone)]
pub struct Http {
    ingest: Ingest,
    store: Arc<dyn Store>,
    feed: Feed,
    metrics: Metrics,
    started: Instant,
    stopping: CancellationToken,
}

impl Http {
    /// Over `store`. Streams end when `stopping` is cancelled.
    pub fn new(
        ingest: Ingest,
        store: Arc<dyn Store>,
        feed: Feed,
        metrics: Metrics,
        stopping: CancellationToken,
    ) -> Self {
        Self { ingest, store, feed, metrics, started: Instant::now(), stopping }
    }

    /// Everything that answers without gRPC, and what answers for what is not there.
    pub fn router(self) -> Router {
        Router::new()
            .merge(dashboard::router())
            .route("/publish", post(publish::publish))
            .route("/ingest", post(publish::publish))
            .route("/events", get(query::list))
            .route("/events/stream", get(stream::stream))
            .route("/events/{topic}/{event_id}", get(query::event))
            .route("/stats", get(query::stats))
            .route("/openapi.json", get(description))
            .route("/healthz", get(async || Json(json!({ "status": "ok" }))))
            .route("/readyz", get(ready))
            .route("/metrics", get(metrics::metrics))
            .fallback(nothing_here)
            .method_not_allowed_fallback(async || Error::method_not_allowed())
            .layer(DefaultBodyLimit::max(MAX_REQUEST_BYTES))
            .layer(middleware::from_fn(traced))
            .with_state(self)
    }
}

/// Answers within a span that is called after the route.
async fn traced(request: Request, next: Next) -> Response {
    let route = request.extensions().get().map_or("unknown", MatchedPath::as_str);
    let span = trace::call(&format!("{} {route}", request.method()), request.headers());
    let response = next.run(request).instrument(span.clone()).await;
    span.record("http.response.status_code", response.status().as_u16());
    response
}

/// What can be called, for programs that make clients and tests.
async fn description() -> impl IntoResponse {
    ([(CONTENT_TYPE, "application/json")], include_str!("http/openapi.json"))
}

/// Whether events would be taken in and found.
async fn ready(State(http): State<Http>) -> Result<Response, Error> {
    if http.stopping.is_cancelled() || !http.ingest.is_flowing() {
        return Err(Error::unavailable());
    }
    http.store.ping().await.map_err(Error::store)?;
    Ok(Json(json!({ "status": "ready" })).into_response())
}

/// 404, or for a gRPC client, which would not understand that, UNIMPLEMENTED.
async fn nothing_here(headers: HeaderMap) -> Response {
    const UNIMPLEMENTED: &str = "12";
    let content_type = headers.get(CONTENT_TYPE).map(|value| value.as_bytes());
    if content_type.is_some_and(|value| value.starts_with(b"application/grpc")) {
        let headers = [("content-type", "application/grpc"), ("grpc-status", UNIMPLEMENTED)];
        return (StatusCode::OK, headers).into_response();
    }
    Error::not_found(
        "nothing is here; try /publish, /events, /events/stream, /stats, or / with a browser",
    )
    .into_response()
}
