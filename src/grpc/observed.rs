//! Counting calls: when they begin, the messages that pass, and how they end, which a gRPC server says
//! in trailers, so that only whoever watches the whole answer knows it.

use std::{
    collections::HashMap,
    convert::Infallible,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Instant,
};

use http_body::{Frame, SizeHint};
use prost::Message;
use prost_types::{FileDescriptorSet, MethodDescriptorProto};
use tonic::{
    Code, Status,
    body::Body,
    codegen::{BoxFuture, Bytes, Service, http},
    server::NamedService,
};
use tracing::{Instrument, Span};

use crate::{
    metrics::{Calls, Method},
    trace,
};

/// The methods whose calls are counted, by their path.
#[derive(Debug, Clone)]
pub(super) struct Methods {
    known: Arc<HashMap<String, Arc<Method>>>,
    /// Whatever else a caller names: paths are not labels.
    unknown: Arc<Method>,
}

impl Methods {
    /// Those that a descriptor set describes.
    pub(super) fn new(calls: &Calls, descriptors: &[&[u8]]) -> Result<Self, prost::DecodeError> {
        let mut known = HashMap::new();
        for set in descriptors {
            for file in FileDescriptorSet::decode(*set)?.file {
                for service in &file.service {
                    let name = format!("{}.{}", file.package(), service.name());
                    for method in &service.method {
                        let counted = calls.method(kind(method), &name, method.name());
                        known.insert(format!("/{name}/{}", method.name()), Arc::new(counted));
                    }
                }
            }
        }
        let unknown = Arc::new(calls.method("unary", "unknown", "unknown"));
        Ok(Self { known: Arc::new(known), unknown })
    }

    fn of(&self, path: &str) -> &Arc<Method> {
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

/// A service whose calls are counted.
#[derive(Debug, Clone)]
pub(super) struct Observed<S> {
    service: S,
    methods: Methods,
}

impl<S> Observed<S> {
    pub(super) fn new(service: S, methods: &Methods) -> Self {
        Self { service, methods: methods.clone() }
    }
}

impl<S: NamedService> NamedService for Observed<S> {
    const NAME: &'static str = S::NAME;
}

impl<S> Service<http::Request<Body>> for Observed<S>
where
    S: Service<http::Request<Counted>, Response = http::Response<Body>, Error = Infallible>,
    S::Future: Send + 'static,
{
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<Self::Response, Infallible>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.service.poll_ready(context)
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let path = request.uri().path();
        let method = Arc::clone(self.methods.of(path));
        let span = trace::call(path.trim_start_matches('/'), request.headers());
        let call = Call::begin(Arc::clone(&method), span.clone());
        let request = request.map(|body| Counted::request(body, method));
        let answer = self.service.call(request).instrument(span);
        Box::pin(async move {
            let (head, body) = answer.await?.into_parts();
            let body = match Status::from_header_map(&head.headers) {
                Some(status) => {
                    call.end(status.code());
                    body
                }
                None => Body::new(Counted::response(body, call)),
            };
            Ok(http::Response::from_parts(head, body))
        })
    }
}

/// A call in progress. Dropped before its end, it was cancelled.
#[derive(Debug)]
struct Call {
    method: Arc<Method>,
    span: Span,
    begun: Instant,
    code: Code,
}

impl Call {
    fn begin(method: Arc<Method>, span: Span) -> Self {
        method.started.inc();
        Self { method, span, begun: Instant::now(), code: Code::Cancelled }
    }

    fn end(mut self, code: Code) {
        self.code = code;
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        self.method.seconds.observe(self.begun.elapsed().as_secs_f64());
        self.span.record("rpc.response.status_code", self.method.handled(self.code as usize));
    }
}

/// A body whose messages are counted.
#[derive(Debug)]
pub(super) struct Counted {
    body: Body,
    boundaries: Boundaries,
    side: Side,
}

#[derive(Debug)]
enum Side {
    Request(Arc<Method>),
    /// None once the call has ended.
    Response(Option<Call>),
}

impl Counted {
    fn request(body: Body, method: Arc<Method>) -> Self {
        Self { body, boundaries: Boundaries::default(), side: Side::Request(method) }
    }

    fn response(body: Body, call: Call) -> Self {
        Self { body, boundaries: Boundaries::default(), side: Side::Response(Some(call)) }
    }

    fn see(&mut self, frame: &Frame<Bytes>) {
        if let Some(data) = frame.data_ref() {
            let messages = self.boundaries.pass(data);
            match &self.side {
                Side::Request(method) => _ = method.received.inc_by(messages),
                Side::Response(Some(call)) => _ = call.method.sent.inc_by(messages),
                Side::Response(None) => (),
            }
        }
        if let (Some(trailers), Side::Response(call)) = (frame.trailers_ref(), &mut self.side) {
            let status = Status::from_header_map(trailers);
            if let Some(call) = call.take() {
                call.end(status.map_or(Code::Unknown, |status| status.code()));
            }
        }
    }
}

impl http_body::Body for Counted {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(context));
        if let Some(Ok(frame)) = &frame {
            self.see(frame);
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// Where messages begin in a body: each is preceded by a flag and its length.
#[derive(Debug, Default)]
struct Boundaries {
    prefix: [u8; 5],
    /// Bytes of the prefix that have passed.
    known: usize,
    /// Bytes of the message that have not passed yet.
    left: usize,
}

impl Boundaries {
    /// How many messages have begun in `data`.
    fn pass(&mut self, mut data: &[u8]) -> u64 {
        let mut messages = 0;
        while !data.is_empty() {
            let of_message = self.left.min(data.len());
            self.left -= of_message;
            data = &data[of_message..];
            let of_prefix = (self.prefix.len() - self.known).min(data.len());
            self.prefix[self.known..self.known + of_prefix].copy_from_slice(&data[..of_prefix]);
            self.known += of_prefix;
            data = &data[of_prefix..];
            if self.known == self.prefix.len() {
                let [_, length @ ..] = self.prefix;
                (self.left, self.known) = (u32::from_be_bytes(length) as usize, 0);
                messages += 1;
            }
        }
        messages
    }
}

#[cfg(test)]
mod tests {
    use super::Boundaries;

    #[test]
    fn messages_are_counted_wherever_the_data_is_cut() {
        let mut body = Vec::new();
        for message in [&b"one"[..], b"", b"three three"] {
            body.push(0);
            body.extend((message.len() as u32).to_be_bytes());
            body.extend(message);
        }
        for size in 1..=body.len() {
            let mut boundaries = Boundaries::default();
            let counted: u64 = body.chunks(size).map(|data| boundaries.pass(data)).sum();
            assert_eq!(counted, 3, "in pieces of {size}");
        }
    }
}
