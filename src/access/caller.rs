//! For whom a bound is counted.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::Arc,
};

use super::Identity;
use crate::peer::{Peer, origin};

/// The caller that a bound is counted for: an identity of the access file wherever it calls from, or,
/// where callers do not authenticate, the address that the call came from. Calls that need no credentials
/// count for their connection.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum CallerKey {
    /// An identity, by its name in the access file.
    Identity(Arc<str>),
    /// An address as [`origin`] gives it.
    Address(IpAddr),
    /// A connection, by the address and port of its other end.
    Connection(SocketAddr),
}

impl CallerKey {
    /// The key of a call: of its identity if it has one, and otherwise of its peer's address. Calls
    /// that came over no connection, as in tests, share one key.
    pub fn new(identity: Option<&Identity>, peer: Option<&Peer>) -> Self {
        match identity.and_then(Identity::name) {
            Some(name) => Self::Identity(name.into()),
            None => Self::Address(
                peer.map_or(Ipv4Addr::UNSPECIFIED.into(), |peer| origin(peer.address.ip())),
            ),
        }
    }

    /// The key of a call whose caller has not authenticated.
    pub fn connection(peer: Option<&Peer>) -> Self {
        Self::Connection(peer.map_or((Ipv4Addr::UNSPECIFIED, 0).into(), |peer| peer.address))
    }
}
