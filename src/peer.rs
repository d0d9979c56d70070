//! Who is at the other end of a connection, as far as the connection itself tells. What they may do is
//! decided elsewhere.

use std::{net::SocketAddr, sync::Arc};

/// The other end of a connection. Every request has it in its extensions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    /// Where it is.
    pub address: SocketAddr,
    /// Who it is, if it has proved that by a certificate: its first DNS name, or else its common name.
    pub certificate: Option<Arc<str>>,
}
