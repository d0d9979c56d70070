//! The edge: the middleware for calls of all protocols, and the router that dispatches to the
//! protocols. It applies authentication, limits, timeouts, traces and metrics; the protocols decode
//! and encode.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use crate::{access::Access, admission::Admission, api::Api};

pub(crate) use self::{
    call::{Audience, Route, call},
    protocol::{BoxError, Protocol, Record},
    request_body::RequestBody,
    router::Router,
    task::with_task_errors,
};

mod auth;
mod call;
mod chunked;
mod deadline;
mod framing;
mod in_progress;
mod protocol;
mod recorded;
mod request_body;
mod router;
mod task;

/// The shared state of the edge. Clones are handles to the same state.
#[derive(Debug, Clone)]
pub struct Edge(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    access: Access,
    admission: Admission,
    stopping: CancellationToken,
}

impl Edge {
    /// The edge of a service.
    pub fn new(api: &Api) -> Self {
        let Api { access, admission, stopping, .. } = api.clone();
        Self(Arc::new(Shared { access, admission, stopping }))
    }
}
