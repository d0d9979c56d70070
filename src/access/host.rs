//! By which names this machine is called. A page from elsewhere can make its own name lead here
//! (DNS rebinding), and a browser then takes the service for a part of that page; but the name stands in
//! each of its calls.

use std::net::IpAddr;

/// Whether a call to this host, which may have a port, can come from no page out there: to an address, to
/// localhost, or to a name without a dot, which is given on this machine or in its own network.
pub(super) fn is_here(host: &[u8]) -> bool {
    let Ok(host) = std::str::from_utf8(host) else { return false };
    if let Some(rest) = host.strip_prefix('[') {
        let address = rest.split_once(']').map(|(address, _)| address.parse::<IpAddr>());
        return matches!(address, Some(Ok(_)));
    }
    let name = host.split_once(':').map_or(host, |(name, _)| name);
    // A dot at the end only says that the name is whole.
    let name = name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase();
    name.parse::<IpAddr>().is_ok() || !name.contains('.') || name.ends_with(".localhost")
}

#[cfg(test)]
mod tests {
    use super::is_here;

    #[test]
    fn only_names_that_no_page_can_have_are_here() {
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
        ] {
            assert!(!is_here(host.as_bytes()), "{host}");
        }
        assert!(!is_here(b"\xff"));
    }
}
