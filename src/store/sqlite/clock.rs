//! Protection against clock jumps. A SQLite store only has the clock of its process, and a
//! temporary jump ahead must not become the time of all later events.

use std::time::{Duration, Instant};

use crate::{
    event::Timestamp,
    limits::{CLOCK_JUMP, FUTURE_TOLERANCE},
};

/// Compares the system clock with the monotonic time since a known time, and accepts a jump ahead
/// only after it has lasted.
#[derive(Debug)]
pub(super) struct Clock {
    /// An accepted time, and the instant when it was read.
    known: (Timestamp, Instant),
    /// Since when the clock has been ahead of the expected time.
    ahead_since: Option<Instant>,
}

impl Clock {
    pub(super) fn new(time: Timestamp, now: Instant) -> Self {
        Self { known: (time, now), ahead_since: None }
    }

    /// The accepted time for a time read from the clock: less than that if it is far ahead.
    pub(super) fn bounded(&mut self, read: Timestamp, now: Instant) -> Timestamp {
        let (known, at) = self.known;
        let latest = after(known, now.saturating_duration_since(at) + FUTURE_TOLERANCE);
        if read <= latest {
            self.ahead_since = None;
            return read;
        }
        let since = *self.ahead_since.get_or_insert(now);
        if now.saturating_duration_since(since) < CLOCK_JUMP {
            return latest;
        }
        *self = Self::new(read, now);
        read
    }
}

fn after(time: Timestamp, duration: Duration) -> Timestamp {
    let micros = i64::try_from(duration.as_micros()).unwrap_or(i64::MAX);
    Timestamp::from_micros(time.as_micros().saturating_add(micros)).unwrap_or(time)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lasting_clock_jump_is_accepted() {
        let second = Duration::from_secs(1);
        let (time, begun) = (Timestamp::now(), Instant::now());
        let day = Duration::from_secs(86_400);
        let mut clock = Clock::new(time, begun);
        let mut read = |passed: u32, jump: Duration| {
            let passed = passed * second;
            let read = after(after(time, passed), jump);
            let bounded = clock.bounded(read, begun + passed);
            (bounded.as_micros() - after(time, passed).as_micros()) / 1_000_000
        };
        assert_eq!(read(1, Duration::ZERO), 0);
        assert_eq!(read(2, 5 * second), 5, "within the tolerance");
        assert!(read(3, day) < 20, "for a moment");
        assert_eq!(read(4, Duration::ZERO), 0);
        let lasting = CLOCK_JUMP.as_secs() as u32;
        assert!(read(5, day) < 20);
        assert!(read(4 + lasting, day) < 20);
        assert_eq!(read(5 + lasting, day), 86_400, "it lasts");
        assert_eq!(read(6 + lasting, day), 86_400);
    }

    #[test]
    fn small_steps_ahead_add_up_to_a_jump() {
        let (time, begun) = (Timestamp::now(), Instant::now());
        let mut clock = Clock::new(time, begun);
        let mut latest = time;
        for _ in 0..1_000 {
            latest = clock.bounded(after(latest, FUTURE_TOLERANCE), begun);
        }
        assert!(latest <= after(time, FUTURE_TOLERANCE));
    }
}
