//! DNS-rebinding protection. A web page can make its own host name resolve to this machine, and a
//! browser then treats the service as part of the page, but sends that name with each call.

use std::net::{Ipv4Addr, Ipv6Addr};

/// Whether a host with an optional port cannot be the name of a web page elsewhere: an IP address,
/// localhost, or a name without a dot, which only this machine or its network defines. Anything
/// else than a host and port as in RFC 3986 does not count, nor does a percent-encoded name.
pub(super) fn is_here(host: &[u8]) -> bool {
    let Ok(host) = std::str::from_utf8(host) else { return false };
    if let Some(rest) = host.strip_prefix('[') {
        return rest.split_once(']').is_some_and(|(address, port)| {
            address.parse::<Ipv6Addr>().is_ok() && (port.is_empty() || is_port(port))
        });
    }
    let (name, port) = host.split_at(host.find(':').unwrap_or(host.len()));
    let is_host = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
    if !name.bytes().all(is_host) || !(port.is_empty() || is_port(port)) {
        return false;
    }
    // A trailing dot only marks a fully qualified name.
    let name = name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase();
    name.parse::<Ipv4Addr>().is_ok() || !name.contains('.') || name.ends_with(".localhost")
}

/// Whether this is empty, or a colon with an optional port.
fn is_port(text: &str) -> bool {
    let port = text.strip_prefix(':');
    port.is_some_and(|port| {
        port.bytes().all(|byte| byte.is_ascii_digit())
            && (port.is_empty() || port.parse::<u16>().is_ok())
    })
}

#[cfg(test)]
mod tests {
    use super::is_here;

    #[test]
    fn only_local_hosts_are_accepted() {
        for host in [
            "127.0.0.1",
            "127.0.0.1:50051",
            "192.168.1.2:1",
            "[::1]",
            "[::1]:50051",
            "localhost:50051",
            "LOCALHOST.",
            "events.localhost:1",
            "aggregator:50051",
            "my_aggregator-1:50051",
            "localhost:",
            "[::ffff:127.0.0.1]:1",
            "",
        ] {
            assert!(is_here(host.as_bytes()), "{host}");
        }
        for host in [
            "evil.example",
            "evil.example:50051",
            "evil.example.",
            "127.0.0.1.evil.example",
            "localhost.evil.example",
            "notlocalhost.example",
            "[evil.example]",
            "[::1",
            "u@evil.example",
            "evil.local",
            "evil%2eexample",
            "evil%2Eexample:50051",
            "[::1].evil.example",
            "[::1].evil.example:50051",
            "[::1]evil",
            "[::1]:50051.evil.example",
            "[::1]:x",
            "[::1%25eth0]",
            "[127.0.0.1]",
            "::1",
            "localhost:50051.evil.example",
            "localhost:1:2",
            "localhost:65536",
            "localhost:+1",
            "localhost/evil.example",
            "localhost evil",
            "localhost\t",
            "localhost,evil.example",
            "evil\u{3002}example",
            "127.0.0.1..",
        ] {
            assert!(!is_here(host.as_bytes()), "{host}");
        }
        assert!(!is_here(b"\xff"));
    }
}
