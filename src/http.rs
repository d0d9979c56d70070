//! HTTP with JSON, for curl and browsers. Decodes requests, calls the [`api`](crate::api) and
//! encodes its results.

use axum::{
    Json, Router,
    extract::State,
    http::header::CONTENT_TYPE,
    middleware::from_fn_with_state,
    response::IntoResponse,
    routing::{get, post},
};
use serde_json::{Value, json};

use self::middleware::{EdgeLayer, edge_layer};
use crate::{
    api::{Api, Error, Reason},
    edge::{Audience, Edge},
};

mod body;
mod cloudevent;
mod dashboard;
mod error;
mod event;
mod fields;
mod items;
mod metrics;
mod middleware;
mod parameters;
mod publish;
mod query;
mod stream;

/// All routes, behind the edge.
pub fn router(api: &Api, edge: &Edge) -> Router {
    let around = |audience| from_fn_with_state(EdgeLayer::new(api, edge, audience), edge_layer);
    let authenticated = Router::new()
        .route("/publish", post(publish::publish))
        .route("/ingest", post(publish::publish))
        .route("/events", get(query::list))
        .route("/events/stream", get(stream::stream))
        .route("/events/{topic}/{event_id}", get(query::event))
        .route("/stats", get(query::stats))
        .route("/metrics", get(metrics::metrics))
        .method_not_allowed_fallback(method_not_allowed)
        .layer(around(Audience::Authenticated));
    let public = Router::new()
        .merge(dashboard::router())
        .route("/openapi.json", get(description))
        .route("/healthz", get(async || Json(json!({ "status": "ok" }))))
        .route("/readyz", get(ready))
        .fallback(not_found)
        .method_not_allowed_fallback(method_not_allowed)
        .layer(around(Audience::Public));
    authenticated.merge(public).with_state(api.clone())
}

/// The OpenAPI description of the routes.
async fn description() -> impl IntoResponse {
    ([(CONTENT_TYPE, "application/json")], include_str!("http/openapi.json"))
}

/// Readiness: whether events can be published and read.
async fn ready(State(api): State<Api>) -> Result<Json<Value>, Error> {
    match api.is_ready() {
        true => Ok(Json(json!({ "status": "ready" }))),
        false => Err(Error::unavailable()),
    }
}

async fn not_found() -> Error {
    let message =
        "no such route; try /publish, /events, /events/stream, /stats, or / with a browser";
    Error::new(Reason::NotFound, message)
}

async fn method_not_allowed() -> Error {
    Error::new(Reason::MethodNotAllowed, "use POST for /publish, and GET for other routes")
}
