//! How many events an identity may send per second.

use std::{fmt, num::NonZeroU32, time::Duration};

use governor::{
    DefaultDirectRateLimiter, Quota,
    clock::{Clock, DefaultClock},
};

use crate::limits::{MAX_RATE_EVENTS, MIN_RATE_BURST};

/// A rate, and how much of it is left. Of one process: several instances count apart.
pub(super) struct Rate {
    per_second: u32,
    burst: u32,
    limiter: DefaultDirectRateLimiter,
}

impl Rate {
    /// So many events per second, and so many at once. None if either is out of bounds.
    pub(super) fn new(per_second: u32, burst: u32) -> Option<Self> {
        let in_bounds =
            per_second <= MAX_RATE_EVENTS && (MIN_RATE_BURST..=MAX_RATE_EVENTS).contains(&burst);
        let quota = Quota::per_second(NonZeroU32::new(per_second)?);
        let limiter = DefaultDirectRateLimiter::direct(quota.allow_burst(NonZeroU32::new(burst)?));
        in_bounds.then_some(Self { per_second, burst, limiter })
    }

    /// Takes so many events off, or says how long there will not be so many. What is more than can ever
    /// be there counts as all of it: a request that is too large is refused elsewhere.
    pub(super) fn spend(&self, events: usize) -> Result<(), Duration> {
        let events = u32::try_from(events).unwrap_or(u32::MAX).min(self.burst);
        let Some(events) = NonZeroU32::new(events) else { return Ok(()) };
        match self.limiter.check_n(events) {
            Ok(Err(too_early)) => Err(too_early.wait_time_from(DefaultClock::default().now())),
            Ok(Ok(())) | Err(_) => Ok(()),
        }
    }
}

impl PartialEq for Rate {
    /// Whether both allow the same, whatever is left.
    fn eq(&self, other: &Self) -> bool {
        (self.per_second, self.burst) == (other.per_second, other.burst)
    }
}

impl fmt::Debug for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/s, {} at once", self.per_second, self.burst)
    }
}
