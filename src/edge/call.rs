//! The steps of every call, from the request to the handler and back.

use std::{panic::AssertUnwindSafe, time::Duration};

use axum::{
    body::Bytes,
    http::{Request, Response},
};
use futures_util::FutureExt;
use http_body::Body;
use tokio::time::{Instant, timeout};

use super::{
    Edge, Protocol, Record, RequestBody,
    auth::{authenticate, peer},
    chunked::Chunked,
    deadline::Deadline,
    in_progress::InProgress,
    protocol::BoxError,
    recorded::Recorded,
};
use crate::{
    access::CallerKey,
    admission::CallKind,
    api::Error,
    limits::{CALL_TIMEOUT, UNAUTHENTICATED_TIMEOUT},
};

/// Who may call a route.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Audience {
    /// Authenticated callers, or all clients if there is no access file. The handler gets the
    /// [`Caller`](crate::access::Caller) in the extensions of the request.
    Authenticated,
    /// All clients. Requests are small.
    Public,
}

/// Properties of a route.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Route {
    /// Who may call it.
    pub audience: Audience,
    /// Whether a request is a stream of messages.
    pub streams_in: bool,
    /// Whether a response is a stream of messages.
    pub streams_out: bool,
}

impl Route {
    /// The limit that its calls count towards.
    fn kind(self) -> CallKind {
        match self.audience {
            Audience::Authenticated => CallKind::Ordinary,
            Audience::Public if self.streams_in || self.streams_out => CallKind::Watch,
            Audience::Public => CallKind::Unauthenticated,
        }
    }

    fn timeout(self) -> Duration {
        match self.audience {
            Audience::Authenticated => CALL_TIMEOUT,
            Audience::Public => UNAUTHENTICATED_TIMEOUT,
        }
    }
}

/// Handles a call. The steps before the handler run in the order below, and those after it in the
/// reverse order. `record` began when the call arrived.
pub(crate) async fn call<P, A, B, H>(
    edge: &Edge,
    route: Route,
    record: P::Record,
    mut request: Request<A>,
    handle: impl FnOnce(Request<RequestBody<P, A>>) -> H,
) -> Response<P::Body>
where
    P: Protocol,
    A: Body<Data = Bytes> + Send + Unpin + 'static,
    A::Error: Into<BoxError>,
    B: Body<Data = Bytes> + Send + Unpin + 'static,
    B::Error: Into<BoxError>,
    H: Future<Output = Response<B>>,
{
    let begun = Instant::now();

    // Authentication.
    let caller = match caller_key(edge, route, &mut request) {
        Ok(caller) => caller,
        Err(error) => return refuse::<P>(record, error),
    };

    // Admission. The permit is held until the response has been sent.
    let permit = match edge.0.admission.call(route.kind(), &caller) {
        Ok(permit) => permit,
        Err(full) => return refuse::<P>(record, Error::too_many_calls(full)),
    };
    let call = InProgress::new(record, permit);

    // Deadline.
    let requested = P::timeout(request.headers());
    let max = route.timeout();
    let limit = requested.map_or(max, |requested| requested.min(max));

    // Request body: within the memory budget, and with timeouts.
    let request = request.map(|body| RequestBody::new(body, edge, route, &caller, &call));

    // Handler. A panic becomes an internal error.
    let on_expiry = call.clone();
    let handled = async {
        let (mut head, body) = handle(request).await.into_parts();
        call.record(|record| record.head(&head));
        let body = match route.streams_out || Chunked::<B>::is_subscription(&head) {
            true => Chunked::stream(&mut head, body),
            false => {
                let on_expiry = move || on_expiry.fail(&Error::answer_not_taken());
                Chunked::response(&mut head, body, &edge.0.admission, &caller, on_expiry).await?
            }
        };
        Ok((head, body))
    };
    let (head, body) = match timeout(limit, AssertUnwindSafe(handled).catch_unwind()).await {
        Ok(Ok(Ok(response))) => response,
        Ok(Ok(Err(error))) => return fail::<P>(&call, error),
        Ok(Err(_panic)) => return fail::<P>(&call, Error::internal()),
        Err(_elapsed) => return fail::<P>(&call, Error::deadline_exceeded()),
    };

    // Response body: in chunks, until the deadline of the client, and recorded.
    let deadline = requested.and_then(|requested| begun.checked_add(requested));
    let body = Recorded::<P, _>::new(Deadline::new(body, deadline), call);
    Response::from_parts(head, P::body(body))
}

/// The key by which limits count a call. Authenticates the caller, if the route requires it.
fn caller_key<A>(edge: &Edge, route: Route, request: &mut Request<A>) -> Result<CallerKey, Error> {
    match route.kind() {
        CallKind::Ordinary => {
            let caller = authenticate(&edge.0.access, request)?;
            let key = caller.key.clone();
            request.extensions_mut().insert(caller);
            Ok(key)
        }
        CallKind::Watch => Ok(CallerKey::new(None, peer(request.extensions()))),
        CallKind::Unauthenticated => Ok(CallerKey::connection(peer(request.extensions()))),
    }
}

/// Fails a call before it was admitted.
fn refuse<P: Protocol>(mut record: P::Record, error: Error) -> Response<P::Body> {
    record.error(&error);
    P::refuse(error)
}

/// Fails a call before its response.
fn fail<P: Protocol>(call: &InProgress<P::Record>, error: Error) -> Response<P::Body> {
    call.fail(&error);
    P::refuse(error)
}
