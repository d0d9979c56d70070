//! Who is at the other end of a connection, as far as the connection itself tells. What they may do is
//! decided elsewhere.

use std::{net::SocketAddr, sync::Arc};

/// The other end of a connection. Every request has it in its extensions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    /// Where it is.
    pub address: SocketAddr,
    /// Who it is, if it has proved that by a certificate: the DNS names in it, in lower case.
    pub names: Arc<[String]>,
}
