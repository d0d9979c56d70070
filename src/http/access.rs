//! Who calls: found out before anything else of a call is read.

use axum::{
    extract::FromRequestParts,
    http::{
        header::{AUTHORIZATION, HOST},
        request::Parts,
    },
};

use super::error::Error;
use crate::{access::Identity, peer::Peer, service::Service};

/// Who makes a call. Must be the first that the call takes out of its request.
pub(super) struct Caller(pub(super) Identity);

impl FromRequestParts<Service> for Caller {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, service: &Service) -> Result<Self, Error> {
        if service.access.is_open() {
            let authority = parts.uri.authority().map(|authority| authority.as_str().as_bytes());
            let hosts = parts.headers.get_all(HOST).into_iter().map(|host| host.as_bytes());
            service.access.admit(authority.into_iter().chain(hosts)).map_err(Error::access)?;
            return Ok(Self(Identity::ANYBODY));
        }
        if let Some(identity) = parts.extensions.remove() {
            return Ok(Self(identity));
        }
        // Taken out: nothing behind this needs it, so nothing can tell it.
        let token = parts.headers.remove(AUTHORIZATION);
        let peer = parts.extensions.get::<Peer>();
        let names = peer.map(|peer| &peer.names);
        let token = token.as_ref().map(|token| token.as_bytes());
        service.access.authenticate(token, names).map(Self).map_err(Error::access)
    }
}
