//! Who calls: found out before anything of a call is read, and handed to the calls with their request.

use tonic::{
    Request, Status,
    codegen::http::{
        self, Extensions,
        header::{AUTHORIZATION, HOST},
    },
};

use super::status;
use crate::{
    access::{Access, CallerKey, Error, Identity},
    peer::Peer,
};

/// Authenticates a call and leaves its identity in its extensions, where there is an access file.
pub(super) fn authenticate<B>(
    access: &Access,
    request: &mut http::Request<B>,
) -> Result<(), Status> {
    if access.is_open() {
        let authority = request.uri().authority().map(|authority| authority.as_str().as_bytes());
        let hosts = request.headers().get_all(HOST).into_iter().map(|host| host.as_bytes());
        return access.admit(authority.into_iter().chain(hosts)).map_err(status::access);
    }
    // Taken out: nothing behind this needs it, so nothing can tell it.
    let token = request.headers_mut().remove(AUTHORIZATION);
    let names = request.extensions().get::<Peer>().map(|peer| &peer.names);
    let token = token.as_ref().map(|token| token.as_bytes());
    let identity = access.authenticate(token, names).map_err(status::access)?;
    request.extensions_mut().insert(identity);
    Ok(())
}

/// The caller that bounds of a call are counted for.
pub(super) fn caller_key(extensions: &Extensions) -> CallerKey {
    CallerKey::new(extensions.get(), extensions.get())
}

/// Takes out who makes a call.
pub(super) fn caller<T>(access: &Access, request: &mut Request<T>) -> Result<Identity, Status> {
    if access.is_open() {
        return Ok(Identity::ANYBODY);
    }
    let identity = request.extensions_mut().remove::<Identity>();
    identity.ok_or_else(|| status::access(Error::Unauthenticated))
}
