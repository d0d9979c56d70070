//! Who calls: found out before anything else of a call is read, and before it takes any permit.

use std::convert::Infallible;

use axum::{
    extract::FromRequestParts,
    http::{
        header::{AUTHORIZATION, HOST},
        request::Parts,
    },
};

use super::error::Error;
use crate::{
    access::{self, CallerKey, Identity},
    load::Kind,
    peer::Peer,
    service::Service,
};

/// How the authentication of a call ended. Some calls need none.
#[derive(Clone)]
pub(super) struct Authentication {
    identity: Result<Identity, access::Error>,
    key: CallerKey,
}

impl Authentication {
    /// Authenticates a call, which cannot be done twice: its token is taken out.
    pub(super) fn of(parts: &mut Parts, service: &Service) -> Self {
        let identity = authenticate(parts, service);
        let peer = parts.extensions.get();
        let key = match &identity {
            Ok(identity) => CallerKey::new(Some(identity), peer),
            Err(_) => CallerKey::connection(peer),
        };
        Self { identity, key }
    }

    /// Which bound on calls the call counts for.
    pub(super) fn kind(&self) -> Kind {
        match &self.identity {
            Ok(_) => Kind::Ordinary,
            Err(_) => Kind::Unauthenticated,
        }
    }

    /// The caller that bounds of the call are counted for.
    pub(super) fn key(&self) -> &CallerKey {
        &self.key
    }

    /// Fails unless the call may go on where authentication is needed.
    pub(super) fn check(&self) -> Result<(), Error> {
        self.identity.as_ref().map(|_| ()).map_err(|error| Error::access(error.clone()))
    }
}

fn authenticate(parts: &mut Parts, service: &Service) -> Result<Identity, access::Error> {
    if service.access.is_open() {
        let authority = parts.uri.authority().map(|authority| authority.as_str().as_bytes());
        let hosts = parts.headers.get_all(HOST).into_iter().map(|host| host.as_bytes());
        service.access.admit(authority.into_iter().chain(hosts))?;
        return Ok(Identity::ANYBODY);
    }
    // Taken out: nothing behind this needs it, so nothing can tell it.
    let token = parts.headers.remove(AUTHORIZATION);
    let names = parts.extensions.get::<Peer>().map(|peer| &peer.names);
    let token = token.as_ref().map(|token| token.as_bytes());
    service.access.authenticate(token, names)
}

impl FromRequestParts<Service> for Authentication {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, service: &Service) -> Result<Self, Infallible> {
        let known = parts.extensions.get::<Self>().cloned();
        Ok(known.unwrap_or_else(|| Self::of(parts, service)))
    }
}

/// Who makes a call. Must be the first that the call takes out of its request.
pub(super) struct Caller(pub(super) Identity);

impl FromRequestParts<Service> for Caller {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, service: &Service) -> Result<Self, Error> {
        let Ok(known) = Authentication::from_request_parts(parts, service).await;
        known.identity.map(Self).map_err(Error::access)
    }
}
