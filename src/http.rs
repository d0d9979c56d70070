//! Plain HTTP with JSON on the port of the contract, for curl and browsers. It calls the same write path
//! and the same store, and answers what the contract answers.

use axum::{
    Json, Router,
    extract::{DefaultBodyLimit, MatchedPath, Request, State},
    http::{
        HeaderMap, HeaderValue, StatusCode,
        header::{CACHE_CONTROL, CONTENT_TYPE, ETAG, X_CONTENT_TYPE_OPTIONS},
    },
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use serde_json::json;
use tracing::Instrument;

use self::error::Error;
use crate::{limits::MAX_REQUEST_BYTES, service::Service, trace};

mod access;
mod body;
mod cloudevent;
mod dashboard;
mod error;
mod event;
mod fields;
mod guard;
mod items;
mod metrics;
mod parameters;
mod publish;
mod query;
mod stream;

/// Everything that answers without gRPC, and what answers for what is not there.
pub fn router(service: Service) -> Router {
    Router::new()
        .merge(dashboard::router())
        .route("/publish", post(publish::publish))
        .route("/ingest", post(publish::publish))
        .route("/events", get(query::list))
        .route("/events/stream", get(stream::stream))
        .route("/events/{topic}/{event_id}", get(query::event))
        .route("/stats", get(query::stats))
        .route("/openapi.json", get(description))
        .route("/metrics", get(metrics::metrics))
        .fallback(nothing_here)
        .layer(DefaultBodyLimit::max(MAX_REQUEST_BYTES))
        .layer(middleware::from_fn_with_state(service.clone(), guard::guarded))
        .merge(probes(&service))
        .method_not_allowed_fallback(async || Error::method_not_allowed())
        .layer(middleware::map_response(private))
        .layer(middleware::from_fn(traced))
        .with_state(service)
}

/// What asks how the service is, and depends on no bound that other callers could reach.
fn probes(service: &Service) -> Router<Service> {
    Router::new()
        .route("/healthz", get(async || Json(json!({ "status": "ok" }))))
        .route("/readyz", get(ready))
        .layer(middleware::from_fn_with_state(service.clone(), guard::unauthenticated))
}

/// What is answered is for the caller alone, and what it says that it is. The parts of the dashboard, which
/// have tags, say themselves how they are kept.
async fn private(mut response: Response) -> Response {
    let headers = response.headers_mut();
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    if !headers.contains_key(ETAG) {
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    }
    response
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
async fn ready(State(service): State<Service>) -> Result<Response, Error> {
    if !service.is_ready() {
        return Err(Error::unavailable());
    }
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
