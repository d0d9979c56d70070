//! The caller of a request, and the key by which limits count it.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::Arc,
};

use super::{Account, Identity};
use crate::peer::{Peer, origin};

/// The caller of a request.
#[derive(Debug, Clone)]
pub struct Caller {
    /// Its identity.
    pub identity: Identity,
    /// The key by which limits count it.
    pub key: CallerKey,
}

impl Caller {
    /// The account of the events that it sends.
    pub fn account(&self) -> Account {
        self.identity.account(self.key.clone())
    }
}

/// The caller that limits are counted for: an identity of the access file, from any address, or the
/// peer's address if callers are not authenticated. Calls that need no credentials are counted by
/// connection.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum CallerKey {
    /// An identity, by its name in the access file.
    Identity(Arc<str>),
    /// An address, as returned by `origin`.
    Address(IpAddr),
    /// A connection, by the peer's address and port.
    Connection(SocketAddr),
}

impl CallerKey {
    /// The key of a call: its identity, or else the address of its peer. Calls without a
    /// connection, as in tests, share one key.
    pub fn new(identity: Option<&Identity>, peer: Option<&Peer>) -> Self {
        match identity.and_then(Identity::name) {
            Some(name) => Self::Identity(name.into()),
            None => Self::Address(
                peer.map_or(Ipv4Addr::UNSPECIFIED.into(), |peer| origin(peer.address.ip())),
            ),
        }
    }

    /// The key of a call that is not authenticated.
    pub fn connection(peer: Option<&Peer>) -> Self {
        Self::Connection(peer.map_or((Ipv4Addr::UNSPECIFIED, 0).into(), |peer| peer.address))
    }
}
