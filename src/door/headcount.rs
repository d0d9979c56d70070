//! How many are connected, in all and from each place in the network.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use crate::{limits::ADDRESS_SHARE, metrics::Metrics, peer::origin};

/// Who is connected. Clones are handles to the same count.
#[derive(Debug, Clone)]
pub(super) struct Headcount {
    room: usize,
    counts: Arc<Mutex<Counts>>,
}

#[derive(Debug, Default)]
struct Counts {
    all: usize,
    by_origin: HashMap<IpAddr, usize>,
}

/// The room that one connection takes, until this is dropped.
#[derive(Debug)]
pub(super) struct Place {
    headcount: Headcount,
    origin: IpAddr,
    metrics: Metrics,
}

impl Headcount {
    /// Nobody yet, where there is room for so many.
    pub(super) fn new(room: usize) -> Self {
        Self { room, counts: Arc::default() }
    }

    /// Room for one more from this address. None if there is none.
    pub(super) fn take(&self, address: IpAddr, metrics: &Metrics) -> Option<Place> {
        let origin = origin(address);
        let mut counts = self.counts();
        let of_origin = counts.by_origin.get(&origin).copied().unwrap_or_default();
        if counts.all >= self.room || of_origin >= self.room / ADDRESS_SHARE {
            metrics.connections_refused.inc();
            return None;
        }
        counts.all += 1;
        counts.by_origin.insert(origin, of_origin + 1);
        metrics.connections.inc();
        Some(Place { headcount: self.clone(), origin, metrics: metrics.clone() })
    }

    fn counts(&self) -> MutexGuard<'_, Counts> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.metrics.connections.dec();
        let mut counts = self.headcount.counts();
        counts.all -= 1;
        if let Some(of_origin) = counts.by_origin.get_mut(&self.origin) {
            *of_origin -= 1;
            if *of_origin == 0 {
                counts.by_origin.remove(&self.origin);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_takes_all_the_room() {
        const ROOM: usize = 1_000;
        let (headcount, metrics) = (Headcount::new(ROOM), Metrics::default());
        let take = |address: &str| headcount.take(address.parse().expect("address"), &metrics);
        let mut places: Vec<Place> = (0..ROOM / ADDRESS_SHARE)
            .map(|host| take(&format!("2001:db8::{host:x}")).expect("room"))
            .collect();
        assert!(take("2001:db8::ffff").is_none(), "one network of IPv6 counts as one address");
        places.extend(take("2001:db8:0:1::"));
        assert_eq!(places.len(), ROOM / ADDRESS_SHARE + 1, "there is room for others");
        for host in 0.. {
            let Some(place) = take(&format!("10.0.{}.{}", host / 250, host % 250)) else { break };
            places.push(place);
        }
        assert_eq!(places.len(), ROOM);
        places.pop();
        assert!(take("192.0.2.1").is_some(), "room is given back");
        drop(places);
        assert!(headcount.counts().by_origin.is_empty());
    }
}
