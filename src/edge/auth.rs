//! Authentication of the callers of all protocols.

use axum::http::{
    Extensions, Request,
    header::{AUTHORIZATION, HOST},
};

use crate::{
    access::{Access, Caller, CallerKey, Error, Identity},
    peer::Peer,
};

/// Authenticates the caller of a request. Removes the token from the request, so that later code
/// cannot leak it.
pub(super) fn authenticate<B>(access: &Access, request: &mut Request<B>) -> Result<Caller, Error> {
    let identity = match access.is_open() {
        true => {
            let authority = request.uri().authority().map(|name| name.as_str().as_bytes());
            let hosts = request.headers().get_all(HOST).into_iter().map(|host| host.as_bytes());
            access.admit(authority.into_iter().chain(hosts))?;
            Identity::ANYBODY
        }
        false => {
            let token = request.headers_mut().remove(AUTHORIZATION);
            let names = peer(request.extensions()).map(|peer| &peer.names);
            access.authenticate(token.as_ref().map(|token| token.as_bytes()), names)?
        }
    };
    let key = CallerKey::new(Some(&identity), peer(request.extensions()));
    Ok(Caller { identity, key })
}

/// The peer of the connection of a request.
pub(super) fn peer(extensions: &Extensions) -> Option<&Peer> {
    extensions.get()
}
