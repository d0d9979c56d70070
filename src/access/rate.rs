//! Rate limits of identities, in events per second.

use std::{fmt, num::NonZeroU32, time::Duration};

use governor::{
    DefaultDirectRateLimiter, Quota,
    clock::{Clock, DefaultClock},
};
use parking_lot::Mutex;

use crate::limits::{COMPARED_BYTES_PER_EVENT, MAX_RATE_EVENTS, MIN_RATE_BURST};

/// A rate limit and its state. Each process counts separately.
pub(super) struct Rate {
    per_second: u32,
    burst: u32,
    limiter: DefaultDirectRateLimiter,
    /// Compared bytes that are not paid for yet.
    owed: Mutex<usize>,
}

impl Rate {
    /// A limit of events per second, with a burst. `None` if either is out of bounds.
    pub(super) fn new(per_second: u32, burst: u32) -> Option<Self> {
        let in_bounds =
            per_second <= MAX_RATE_EVENTS && (MIN_RATE_BURST..=MAX_RATE_EVENTS).contains(&burst);
        let quota = Quota::per_second(NonZeroU32::new(per_second)?);
        let limiter = DefaultDirectRateLimiter::direct(quota.allow_burst(NonZeroU32::new(burst)?));
        in_bounds.then_some(Self { per_second, burst, limiter, owed: Mutex::default() })
    }

    /// Charges a comparison with stored payloads. Later events wait until it is paid.
    pub(super) fn charge(&self, bytes: usize) {
        let mut owed = self.owed.lock();
        *owed = owed.saturating_add(bytes);
    }

    /// Pays the debt in whole events, or returns how long that takes.
    fn pay(&self) -> Result<(), Duration> {
        let mut owed = self.owed.lock();
        while *owed >= COMPARED_BYTES_PER_EVENT {
            let all = *owed / COMPARED_BYTES_PER_EVENT;
            let events = all.min(self.burst as usize);
            let rest = Duration::from_secs((all - events) as u64 / u64::from(self.per_second));
            self.take(events).map_err(|wait| wait.saturating_add(rest))?;
            *owed -= events * COMPARED_BYTES_PER_EVENT;
        }
        Ok(())
    }

    /// Takes events from the limit, or returns how long until they are available. A request larger
    /// than the burst takes all of it: its size is limited elsewhere.
    pub(super) fn spend(&self, events: usize) -> Result<(), Duration> {
        self.pay()?;
        self.take(events)
    }

    fn take(&self, events: usize) -> Result<(), Duration> {
        let events = u32::try_from(events).unwrap_or(u32::MAX).min(self.burst);
        let Some(events) = NonZeroU32::new(events) else { return Ok(()) };
        match self.limiter.check_n(events) {
            Ok(Err(too_early)) => Err(too_early.wait_time_from(DefaultClock::default().now())),
            Ok(Ok(())) | Err(_) => Ok(()),
        }
    }
}

impl PartialEq for Rate {
    /// Whether both have the same limits, regardless of their state.
    fn eq(&self, other: &Self) -> bool {
        (self.per_second, self.burst) == (other.per_second, other.burst)
    }
}

impl fmt::Debug for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/s, {} at once", self.per_second, self.burst)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comparison_debt_is_paid_first() {
        let rate = Rate::new(1, 1_000).expect("a rate");
        rate.charge(999 * COMPARED_BYTES_PER_EVENT + 5);
        assert_eq!(rate.spend(1), Ok(()));
        let wait = rate.spend(1).expect_err("all is spent");
        assert!(wait <= Duration::from_secs(1), "{wait:?}");

        rate.charge(2_000 * COMPARED_BYTES_PER_EVENT);
        let wait = rate.spend(1).expect_err("the first part is not paid");
        assert!(wait > Duration::from_secs(990), "{wait:?}");
    }

    #[test]
    fn debt_is_paid_in_whole_events() {
        let rate = Rate::new(1, 1_000).expect("a rate");
        rate.charge(COMPARED_BYTES_PER_EVENT - 1);
        assert_eq!(rate.spend(1_000), Ok(()));
        rate.charge(1);
        assert!(rate.spend(0).is_err());
    }
}
