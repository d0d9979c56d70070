//! The edge: what is done around every call, whatever its protocol, and the router that tells the protocols
//! apart. Protocols decode and encode; this bounds, authenticates, times, traces and counts.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use crate::{access::Access, admission::Admission, api::Api};

pub use self::{
    call::{Audience, Route, call},
    protocol::{BoxError, Protocol, Record},
    request_body::RequestBody,
    router::Router,
    task::filled_by,
};

mod auth;
mod call;
mod chunked;
mod counted;
mod deadline;
mod framing;
mod in_progress;
mod protocol;
mod request_body;
mod router;
mod task;

/// What the edge needs of the service. Clones are handles to the same one.
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
