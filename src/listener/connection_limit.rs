//! The connection limits: in total, and per address.

use std::{collections::HashMap, net::IpAddr, sync::Arc};

use parking_lot::Mutex;

use crate::{limits::ADDRESS_SHARE, metrics::Metrics, peer::origin};

/// A limit on open connections. Clones are handles to the same one.
#[derive(Debug, Clone)]
pub(super) struct ConnectionLimit {
    max: usize,
    open: Arc<Mutex<Open>>,
}

#[derive(Debug, Default)]
struct Open {
    all: usize,
    by_origin: HashMap<IpAddr, usize>,
}

/// An open connection, counted until this is dropped.
#[derive(Debug)]
pub(super) struct ConnectionGuard {
    limit: ConnectionLimit,
    origin: IpAddr,
    metrics: Metrics,
}

impl ConnectionLimit {
    pub(super) fn new(max: usize) -> Self {
        Self { max, open: Arc::default() }
    }

    /// Counts one more connection of an address, unless a limit is reached.
    pub(super) fn acquire(&self, address: IpAddr, metrics: &Metrics) -> Option<ConnectionGuard> {
        let origin = origin(address);
        let mut open = self.open.lock();
        let of_origin = open.by_origin.get(&origin).copied().unwrap_or_default();
        if open.all >= self.max || of_origin >= self.max / ADDRESS_SHARE {
            metrics.connections_refused.inc();
            return None;
        }
        open.all += 1;
        open.by_origin.insert(origin, of_origin + 1);
        metrics.connections.inc();
        Some(ConnectionGuard { limit: self.clone(), origin, metrics: metrics.clone() })
    }
}

impl Drop for ConnectionGuard {
    fn drop(&mut self) {
        self.metrics.connections.dec();
        let mut open = self.limit.open.lock();
        open.all -= 1;
        if let Some(of_origin) = open.by_origin.get_mut(&self.origin) {
            *of_origin -= 1;
            if *of_origin == 0 {
                open.by_origin.remove(&self.origin);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_address_has_a_share_of_the_limit() {
        const MAX: usize = 1_000;
        let (limit, metrics) = (ConnectionLimit::new(MAX), Metrics::default());
        let acquire = |address: &str| limit.acquire(address.parse().expect("address"), &metrics);
        let mut open: Vec<ConnectionGuard> = (0..MAX / ADDRESS_SHARE)
            .map(|host| acquire(&format!("2001:db8::{host:x}")).expect("below the limit"))
            .collect();
        assert!(acquire("2001:db8::ffff").is_none(), "an IPv6 /64 counts as one address");
        open.extend(acquire("2001:db8:0:1::"));
        assert_eq!(open.len(), MAX / ADDRESS_SHARE + 1, "others can connect");
        for host in 0.. {
            let address = format!("10.0.{}.{}", host / 250, host % 250);
            let Some(guard) = acquire(&address) else { break };
            open.push(guard);
        }
        assert_eq!(open.len(), MAX);
        open.pop();
        assert!(acquire("192.0.2.1").is_some(), "a closed connection is not counted");
        drop(open);
        assert!(limit.open.lock().by_origin.is_empty());
    }
}
