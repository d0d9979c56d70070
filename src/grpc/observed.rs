//! What is done around every call: it is counted and traced from its beginning to its end, it ends when
//! its time is over, and if it panics it is answered like any other fault. Its bodies are next door.

use std::{
    collections::HashMap,
    convert::Infallible,
    panic::AssertUnwindSafe,
    sync::Arc,
    task::{Context, Poll},
    time::Instant,
};

use futures_util::FutureExt;
use prost::Message;
use prost_types::{FileDescriptorSet, MethodDescriptorProto};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tonic::{
    Code, Status,
    body::Body,
    codegen::{BoxFuture, Service, http},
    server::NamedService,
};
use tracing::{Instrument, Span};

use super::{access, deadline, request_body::RequestBody, response_body::ResponseBody, status};
use crate::{
    access::{Access, CallerKey},
    limits::{CALL_TIMEOUT, UNAUTHENTICATED_TIMEOUT},
    load::{Kind, Load, Permit},
    metrics::{Calls, Method},
    trace,
};

/// The methods whose calls are counted, by their path.
#[derive(Debug, Clone)]
pub(super) struct Methods {
    known: Arc<HashMap<String, Known>>,
    /// Whatever else a caller names: paths are not labels.
    unknown: Known,
}

/// A method of which something is known.
#[derive(Debug, Clone)]
pub(super) struct Known {
    pub(super) counted: Arc<Method>,
    /// Whether its callers send one message after the other.
    pub(super) streams_in: bool,
    /// Whether it answers one message after the other.
    streams_out: bool,
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

/// A service whose calls are counted, bounded in time and in number.
#[derive(Debug, Clone)]
pub(super) struct Observed<S> {
    service: S,
    methods: Methods,
    load: Load,
    /// Set if callers must authenticate, where there is an access file.
    access: Option<Access>,
    /// Set if anybody may call it: then its endless calls end when this is done.
    stopping: Option<CancellationToken>,
}

impl<S> Observed<S> {
    pub(super) fn new(service: S, methods: &Methods, load: &Load) -> Self {
        let (methods, load) = (methods.clone(), load.clone());
        Self { service, methods, load, access: None, stopping: None }
    }

    /// A service whose callers must authenticate.
    pub(super) fn authenticated(self, access: &Access) -> Self {
        Self { access: Some(access.clone()), ..self }
    }

    /// A service that anybody may call, until the service as a whole stops.
    pub(super) fn for_anybody(self, stopping: &CancellationToken) -> Self {
        Self { stopping: Some(stopping.clone()), ..self }
    }

    fn kind(&self, method: &Known) -> Kind {
        match &self.stopping {
            None => Kind::Ordinary,
            Some(_) if method.streams_in || method.streams_out => Kind::Watch,
            Some(_) => Kind::Unauthenticated,
        }
    }

    /// Authenticates a call, and takes its permit.
    fn admit(
        &self,
        method: &Known,
        request: &mut http::Request<Body>,
    ) -> Result<(CallerKey, Permit), Status> {
        if let Some(access) = &self.access {
            access::authenticate(access, request)?;
        }
        let kind = self.kind(method);
        let caller = match kind {
            Kind::Unauthenticated => CallerKey::connection(request.extensions().get()),
            Kind::Ordinary | Kind::Watch => access::caller_key(request.extensions()),
        };
        let permit = self.load.call(kind, &caller).map_err(status::too_many_calls)?;
        Ok((caller, permit))
    }
}

impl<S: NamedService> NamedService for Observed<S> {
    const NAME: &'static str = S::NAME;
}

impl<S> Service<http::Request<Body>> for Observed<S>
where
    S: Service<http::Request<RequestBody>, Response = http::Response<Body>, Error = Infallible>,
    S::Future: Send + 'static,
{
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<Self::Response, Infallible>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.service.poll_ready(context)
    }

    fn call(&mut self, mut request: http::Request<Body>) -> Self::Future {
        let path = request.uri().path();
        let method = self.methods.of(path).clone();
        let span = trace::call(path.trim_start_matches('/'), request.headers());
        let mut call = Call::begin(Arc::clone(&method.counted), span.clone());
        let caller = match self.admit(&method, &mut request) {
            Ok((caller, permit)) => {
                call.permit = Some(permit);
                caller
            }
            Err(status) => {
                call.end(status.code());
                return Box::pin(async move { Ok(status.into_http()) });
            }
        };
        let allowed = deadline::asked(request.headers());
        let longest = match &self.stopping {
            None => CALL_TIMEOUT,
            Some(_) => UNAUTHENTICATED_TIMEOUT,
        };
        let load = self.load.clone();
        let request = request.map(|body| {
            let body = RequestBody::new(body, &method, &load, &caller);
            match &self.stopping {
                None => body,
                Some(stopping) => body.small(stopping.clone().cancelled_owned()),
            }
        });
        let answer = AssertUnwindSafe(self.service.call(request).instrument(span)).catch_unwind();
        Box::pin(async move {
            let bound = allowed.map_or(longest, |allowed| allowed.min(longest));
            let answer = match timeout(bound, answer).await {
                Ok(Ok(answer)) => answer?,
                Ok(Err(_)) => status::internal().into_http(),
                Err(_) => status::deadline_exceeded().into_http(),
            };
            let (mut head, body) = answer.into_parts();
            let (unsent, reserved) = (head.extensions.remove(), head.extensions.remove());
            let body = match Status::from_header_map(&head.headers) {
                Some(status) => {
                    call.end(status.code());
                    body
                }
                None => {
                    let deadline = allowed.and_then(|allowed| call.begun.checked_add(allowed));
                    let load = (!method.streams_out).then_some((load, caller, reserved));
                    Body::new(ResponseBody::new(body, call, deadline, load, unsent))
                }
            };
            Ok(http::Response::from_parts(head, body))
        })
    }
}

/// A call in progress. Dropped before its end, it was cancelled.
#[derive(Debug)]
pub(super) struct Call {
    pub(super) method: Arc<Method>,
    span: Span,
    begun: Instant,
    code: Code,
    /// Given back when it ends.
    permit: Option<Permit>,
}

impl Call {
    fn begin(method: Arc<Method>, span: Span) -> Self {
        method.started.inc();
        Self { method, span, begun: Instant::now(), code: Code::Cancelled, permit: None }
    }

    pub(super) fn end(mut self, code: Code) {
        self.code = code;
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        self.method.seconds.observe(self.begun.elapsed().as_secs_f64());
        self.span.record("rpc.response.status_code", self.method.handled(self.code as usize));
    }
}
