//! Who calls: found out before anything of a call is read, and handed to the calls with their request.

use std::{
    convert::Infallible,
    future::{Ready, ready},
    task::{Context, Poll},
};

use tokio_util::either::Either;
use tonic::{
    Request, Status,
    body::Body,
    codegen::{
        Service,
        http::{
            self,
            header::{AUTHORIZATION, HOST},
        },
    },
    server::NamedService,
};

use super::status;
use crate::{
    access::{Access, Error, Identity},
    peer::Peer,
};

/// A service that answers only callers who are known.
#[derive(Debug, Clone)]
pub(super) struct Authenticated<S> {
    service: S,
    access: Access,
}

impl<S> Authenticated<S> {
    pub(super) fn new(service: S, access: Access) -> Self {
        Self { service, access }
    }
}

impl<S: NamedService> NamedService for Authenticated<S> {
    const NAME: &'static str = S::NAME;
}

impl<S, B> Service<http::Request<B>> for Authenticated<S>
where
    S: Service<http::Request<B>, Response = http::Response<Body>, Error = Infallible>,
{
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Either<S::Future, Ready<Result<Self::Response, Infallible>>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.service.poll_ready(context)
    }

    fn call(&mut self, mut request: http::Request<B>) -> Self::Future {
        if self.access.is_open() {
            let authority =
                request.uri().authority().map(|authority| authority.as_str().as_bytes());
            let hosts = request.headers().get_all(HOST).into_iter().map(|host| host.as_bytes());
            if let Err(error) = self.access.admit(authority.into_iter().chain(hosts)) {
                return Either::Right(ready(Ok(status::access(error).into_http())));
            }
        } else {
            // Taken out: nothing behind this needs it, so nothing can tell it.
            let token = request.headers_mut().remove(AUTHORIZATION);
            let peer = request.extensions().get::<Peer>();
            let names = peer.map(|peer| &peer.names);
            let token = token.as_ref().map(|token| token.as_bytes());
            match self.access.authenticate(token, names) {
                Ok(identity) => _ = request.extensions_mut().insert(identity),
                Err(error) => {
                    return Either::Right(ready(Ok(status::access(error).into_http())));
                }
            }
        }
        Either::Left(self.service.call(request))
    }
}

/// Takes out who makes a call.
pub(super) fn caller<T>(access: &Access, request: &mut Request<T>) -> Result<Identity, Status> {
    if access.is_open() {
        return Ok(Identity::ANYBODY);
    }
    let identity = request.extensions_mut().remove::<Identity>();
    identity.ok_or_else(|| status::access(Error::Unauthenticated))
}
