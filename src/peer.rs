//! Who is at the other end of a connection, as far as the connection itself tells. What they may do is
//! decided elsewhere.

use std::{
    net::{IpAddr, Ipv6Addr, SocketAddr},
    sync::Arc,
};

/// The other end of a connection. Every request has it in its extensions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    /// Where it is.
    pub address: SocketAddr,
    /// Who it is, if it has proved that by a certificate: the DNS names in it, in lower case.
    pub names: Arc<[String]>,
}

/// What counts as one address. One customer of a network gets 2^64 addresses of IPv6.
pub fn origin(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => address.into(),
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0).into()
        }
    }
}
