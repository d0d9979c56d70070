//! HTTP as a [`Protocol`] of the edge, and the middleware that applies the edge to its routes.

use std::time::{Duration, Instant};

use axum::{
    body::{Body, Bytes},
    extract::{MatchedPath, Request, State},
    http::{
        HeaderMap, HeaderValue,
        header::{CACHE_CONTROL, ETAG, X_CONTENT_TYPE_OPTIONS},
        response,
    },
    middleware::Next,
    response::{IntoResponse, Response},
};
use tracing::{Instrument, Span};

use crate::{
    api::{Api, Error},
    edge::{self, Audience, BoxError, Edge, Protocol, Record, RequestBody, Route},
    metrics::HttpRequests,
    trace,
};

/// The HTTP protocol.
pub(super) struct Http;

impl Protocol for Http {
    type Body = Body;
    type Record = RequestRecord;

    const IS_FRAMED: bool = false;

    fn body<B>(body: B) -> Body
    where
        B: http_body::Body<Data = Bytes, Error = BoxError> + Send + 'static,
    {
        Body::new(body)
    }

    fn refuse(error: Error) -> Response {
        error.into_response()
    }

    fn trailers(_: &Error) -> Option<HeaderMap> {
        None
    }

    fn body_error(error: Error) -> BoxError {
        error.into()
    }

    fn timeout(_: &HeaderMap) -> Option<Duration> {
        None
    }
}

/// The record of a request. Without a status, the client disconnected before there was a response.
pub(super) struct RequestRecord {
    requests: HttpRequests,
    method: &'static str,
    route: String,
    status: u16,
    span: Span,
    begun: Instant,
}

/// The status that nginx logs for a request whose client disconnected.
const CLIENT_CLOSED_REQUEST: u16 = 499;

impl Record for RequestRecord {
    fn received(&mut self, _: u64) {}

    fn sent(&mut self, _: u64) {}

    fn head(&mut self, head: &response::Parts) {
        self.status = head.status.as_u16();
    }

    fn trailers(&mut self, _: &HeaderMap) {}

    fn error(&mut self, error: &Error) {
        self.status = super::error::status(error.reason).as_u16();
    }
}

impl Drop for RequestRecord {
    fn drop(&mut self) {
        let route = std::mem::take(&mut self.route);
        self.requests.observe(self.method, route, self.status, self.begun.elapsed());
        self.span.record("http.response.status_code", self.status);
    }
}

/// The state of the middleware.
#[derive(Clone)]
pub(super) struct EdgeLayer {
    edge: Edge,
    requests: HttpRequests,
    audience: Audience,
}

impl EdgeLayer {
    pub(super) fn new(api: &Api, edge: &Edge, audience: Audience) -> Self {
        Self { edge: edge.clone(), requests: api.metrics.http.clone(), audience }
    }
}

/// The middleware.
pub(super) async fn edge_layer(
    State(EdgeLayer { edge, requests, audience }): State<EdgeLayer>,
    request: Request,
    next: Next,
) -> Response {
    let route = request.extensions().get().map_or("unknown", MatchedPath::as_str).to_owned();
    let method = method_label(request.method().as_str());
    let span = trace::call(&format!("{method} {route}"), request.headers());
    let (status, begun) = (CLIENT_CLOSED_REQUEST, Instant::now());
    let record = RequestRecord { requests, method, route, status, span: span.clone(), begun };
    let route = Route { audience, streams_in: false, streams_out: false };
    let handle = |request: Request<RequestBody<Http, Body>>| {
        next.run(request.map(Body::new)).instrument(span)
    };
    with_headers(edge::call::<Http, _, _, _>(&edge, route, record, request, handle).await)
}

/// The method as a metric label. Unknown methods share one label.
fn method_label(method: &str) -> &'static str {
    const KNOWN: [&str; 4] = ["GET", "HEAD", "POST", "OPTIONS"];
    KNOWN.into_iter().find(|known| *known == method).unwrap_or("_OTHER")
}

/// Sets headers against caching and content sniffing. Responses with an entity tag, which are the
/// files of the dashboard, set their own cache policy.
fn with_headers(mut response: Response) -> Response {
    let headers = response.headers_mut();
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    if !headers.contains_key(ETAG) {
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    }
    response
}
