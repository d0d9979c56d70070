//! gRPC as a [`Protocol`] of the edge, and the wrapper that applies the edge to gRPC services.

use std::{
    collections::HashMap,
    convert::Infallible,
    sync::Arc,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use http_body::Body as HttpBody;
use prost::Message;
use prost_types::{FileDescriptorSet, MethodDescriptorProto};
use tonic::{
    Code, Status,
    body::Body,
    codegen::{
        BoxFuture, Bytes, Service,
        http::{HeaderMap, Request, Response, response},
    },
    server::NamedService,
};
use tracing::{Instrument, Span};

use super::timeout;
use crate::{
    api::Error,
    edge::{self, Audience, BoxError, Edge, Protocol, Record, RequestBody, Route},
    metrics::{Calls, Method},
    trace,
};

/// The gRPC protocol.
pub(super) struct Grpc;

impl Protocol for Grpc {
    type Body = Body;
    type Record = CallRecord;

    const IS_FRAMED: bool = true;

    fn body<B>(body: B) -> Body
    where
        B: HttpBody<Data = Bytes, Error = BoxError> + Send + 'static,
    {
        Body::new(body)
    }

    fn refuse(error: Error) -> Response<Body> {
        Status::from(error).into_http()
    }

    fn trailers(error: &Error) -> Option<HeaderMap> {
        let mut trailers = HeaderMap::new();
        // Cannot fail: error messages are valid header values and small enough.
        let _ = Status::from(error.clone()).add_header(&mut trailers);
        Some(trailers)
    }

    fn body_error(error: Error) -> BoxError {
        Status::from(error).into()
    }

    fn timeout(headers: &HeaderMap) -> Option<Duration> {
        timeout::requested(headers)
    }
}

/// The record of a call. A call that ends without a status was cancelled.
pub(super) struct CallRecord {
    method: Arc<Method>,
    span: Span,
    begun: Instant,
    code: Code,
}

impl CallRecord {
    fn begin(method: &Arc<Method>, span: Span) -> Self {
        method.started.inc();
        Self { method: Arc::clone(method), span, begun: Instant::now(), code: Code::Cancelled }
    }
}

impl Record for CallRecord {
    fn received(&mut self, messages: u64) {
        self.method.received.inc_by(messages);
    }

    fn sent(&mut self, messages: u64) {
        self.method.sent.inc_by(messages);
    }

    fn head(&mut self, head: &response::Parts) {
        // A response without messages has its status in the head.
        if let Some(status) = Status::from_header_map(&head.headers) {
            self.code = status.code();
        }
    }

    fn trailers(&mut self, trailers: &HeaderMap) {
        let status = Status::from_header_map(trailers);
        self.code = status.map_or(Code::Unknown, |status| status.code());
    }

    fn error(&mut self, error: &Error) {
        self.code = super::status::code(error.reason);
    }
}

impl Drop for CallRecord {
    fn drop(&mut self) {
        self.method.seconds.observe(self.begun.elapsed().as_secs_f64());
        self.span.record("rpc.response.status_code", self.method.handled(self.code as usize));
    }
}

/// Metrics of all methods, by path. Clones are handles to the same metrics.
#[derive(Debug, Clone)]
pub(super) struct Methods {
    known: Arc<HashMap<String, Known>>,
    /// All other paths: unknown paths must not become label values.
    unknown: Known,
}

#[derive(Debug, Clone)]
struct Known {
    counted: Arc<Method>,
    streams_in: bool,
    streams_out: bool,
}

impl Methods {
    /// Registers all methods of the descriptor sets.
    pub(super) fn new(calls: &Calls, descriptors: &[&[u8]]) -> Result<Self, prost::DecodeError> {
        let mut known = HashMap::new();
        for set in descriptors {
            for file in FileDescriptorSet::decode(*set)?.file {
                for service in &file.service {
                    let name = format!("{}.{}", file.package(), service.name());
                    for method in &service.method {
                        let counted = calls.method(kind(method), &name, method.name());
                        let path = format!("/{name}/{}", method.name());
                        let method = Known {
                            counted: Arc::new(counted),
                            streams_in: method.client_streaming(),
                            streams_out: method.server_streaming(),
                        };
                        known.insert(path, method);
                    }
                }
            }
        }
        let counted = Arc::new(calls.method("unary", "unknown", "unknown"));
        let unknown = Known { counted, streams_in: false, streams_out: false };
        Ok(Self { known: Arc::new(known), unknown })
    }

    fn of(&self, path: &str) -> &Known {
        self.known.get(path).unwrap_or(&self.unknown)
    }
}

fn kind(method: &MethodDescriptorProto) -> &'static str {
    match (method.client_streaming(), method.server_streaming()) {
        (false, false) => "unary",
        (true, false) => "client_stream",
        (false, true) => "server_stream",
        (true, true) => "bidi_stream",
    }
}

/// A service behind the edge.
#[derive(Debug, Clone)]
pub(super) struct EdgeService<S> {
    service: S,
    methods: Methods,
    edge: Edge,
    audience: Audience,
}

impl<S> EdgeService<S> {
    pub(super) fn new(service: S, methods: &Methods, edge: &Edge, audience: Audience) -> Self {
        Self { service, methods: methods.clone(), edge: edge.clone(), audience }
    }
}

impl<S> EdgeService<S>
where
    S: Service<Request<RequestBody<Grpc, Body>>, Response = Response<Body>, Error = Infallible>
        + Clone
        + Send
        + 'static,
    S::Future: Send,
{
    /// Answers a call.
    pub(super) fn answer(&self, request: Request<Body>) -> BoxFuture<Response<Body>, Infallible> {
        let path = request.uri().path();
        let Known { counted, streams_in, streams_out } = self.methods.of(path);
        let route =
            Route { audience: self.audience, streams_in: *streams_in, streams_out: *streams_out };
        let span = trace::call(path.trim_start_matches('/'), request.headers());
        let record = CallRecord::begin(counted, span.clone());
        let (edge, mut service) = (self.edge.clone(), self.service.clone());
        Box::pin(async move {
            let handle = |request| async move {
                let Ok(response) = service.call(request).instrument(span).await;
                response
            };
            Ok(edge::call::<Grpc, _, _, _>(&edge, route, record, request, handle).await)
        })
    }
}

impl<S: NamedService> NamedService for EdgeService<S> {
    const NAME: &'static str = S::NAME;
}

impl<S> Service<Request<Body>> for EdgeService<S>
where
    S: Service<Request<RequestBody<Grpc, Body>>, Response = Response<Body>, Error = Infallible>
        + Clone
        + Send
        + 'static,
    S::Future: Send,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<Self::Response, Infallible>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.service.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        self.answer(request)
    }
}
