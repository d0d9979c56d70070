//! The peer of a connection: its address, and the names in its client certificate.

use std::{
    net::{IpAddr, Ipv6Addr, SocketAddr},
    sync::Arc,
};

/// The peer of a connection, in the extensions of every request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    /// Its address.
    pub address: SocketAddr,
    /// The DNS names of its verified client certificate, in lower case. Empty without a
    /// certificate.
    pub names: Arc<[String]>,
}

/// The address by which limits count a client: an IPv4 address, or the /64 prefix of an IPv6
/// address, because one customer usually gets a whole /64.
pub(crate) fn origin(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => address.into(),
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0).into()
        }
    }
}
