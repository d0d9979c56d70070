//! Whether a listen address is safe. A non-loopback address requires TLS and authentication, or the
//! operator's consent.

use std::net::IpAddr;

/// A non-loopback address without both TLS and authentication.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "a non-loopback address requires TLS and authentication: pass --tls-cert and --tls-key with \
     --access (or --tls-client-ca), listen on 127.0.0.1, or pass --insecure on a trusted network"
)]
pub struct Exposed;

/// Whether an address can only be reached from this machine.
pub(crate) fn is_loopback(address: IpAddr) -> bool {
    address.to_canonical().is_loopback()
}

/// Whether other machines can reach a listener without both TLS and authentication.
pub(crate) fn is_exposed(address: IpAddr, tls: bool, authenticated: bool) -> bool {
    // Without TLS, tokens can be intercepted.
    !(is_loopback(address) || (tls && authenticated))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn non_loopback_address_requires_tls_and_authentication() {
        let [here, beyond] = ["127.0.0.1", "0.0.0.0"].map(|it| it.parse().expect("an address"));
        for (tls, authenticated) in [(false, false), (false, true), (true, false), (true, true)] {
            assert!(!is_exposed(here, tls, authenticated), "{tls} {authenticated}");
            let is_safe = tls && authenticated;
            assert_eq!(is_exposed(beyond, tls, authenticated), !is_safe, "{tls} {authenticated}");
        }
    }

    #[test]
    fn loopback_includes_mapped_addresses() {
        for address in ["127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1"] {
            assert!(is_loopback(address.parse().expect("an address")), "{address}");
        }
        for address in ["0.0.0.0", "::", "10.0.0.1", "::ffff:0.0.0.0"] {
            assert!(!is_loopback(address.parse().expect("an address")), "{address}");
        }
    }
}
