//! Times with the range and the resolution of both stores.

use std::{fmt, str::FromStr};

use time::{OffsetDateTime, format_description::well_known::Rfc3339};
use uuid::Uuid;

use super::Violation;

/// A time in the years 1 to 9999, the range of RFC 3339 and of both stores, with a resolution of
/// one microsecond.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Timestamp(i64);

const OUT_OF_RANGE: &str = "must be between the years 1 and 9999";

impl Timestamp {
    const YEAR_1: i64 = -62_135_596_800_000_000;
    const YEAR_10000: i64 = 253_402_300_800_000_000;

    /// The current time.
    pub fn now() -> Self {
        Self::from(OffsetDateTime::now_utc())
    }

    /// A new UUID of version 7 with this time. Times before 1970 become 1970; random bits keep the
    /// ids unique.
    pub fn new_uuid(self) -> Uuid {
        let micros = self.as_micros().max(0) as u64;
        let nanos = (micros % 1_000_000) as u32 * 1_000;
        Uuid::new_v7(uuid::Timestamp::from_unix(uuid::NoContext, micros / 1_000_000, nanos))
    }

    /// Validates a time of `field`, truncated to the microsecond.
    pub fn new(field: &str, seconds: i64, nanos: i32) -> Result<Self, Violation> {
        if !(0..1_000_000_000).contains(&nanos) {
            let fault = "must be between 0 and 999,999,999";
            return Err(Violation::new(format!("{field}.nanos"), fault));
        }
        seconds
            .checked_mul(1_000_000)
            .and_then(|micros| micros.checked_add(i64::from(nanos / 1_000)))
            .and_then(Self::from_micros)
            .ok_or_else(|| Violation::new(field, OUT_OF_RANGE))
    }

    /// A time in microseconds since 1970, if it is in range.
    pub fn from_micros(micros: i64) -> Option<Self> {
        (Self::YEAR_1..Self::YEAR_10000).contains(&micros).then_some(Self(micros))
    }

    /// Microseconds since 1970; negative for earlier times.
    pub fn as_micros(self) -> i64 {
        self.0
    }
}

impl From<OffsetDateTime> for Timestamp {
    fn from(time: OffsetDateTime) -> Self {
        // A UTC offset may put the time out of range; it becomes the nearest time in range.
        let micros = time.unix_timestamp_nanos().div_euclid(1_000);
        let range = i128::from(Self::YEAR_1)..=i128::from(Self::YEAR_10000 - 1);
        Self(micros.clamp(*range.start(), *range.end()) as i64)
    }
}

impl From<Timestamp> for OffsetDateTime {
    fn from(time: Timestamp) -> Self {
        // Cannot fail: all our times are in range.
        Self::from_unix_timestamp_nanos(i128::from(time.0) * 1_000).unwrap_or(Self::UNIX_EPOCH)
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = OffsetDateTime::from(*self).format(&Rfc3339).map_err(|_| fmt::Error)?;
        f.write_str(&text)
    }
}

impl FromStr for Timestamp {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let time = OffsetDateTime::parse(text, &Rfc3339)
            .map_err(|_| "must be an RFC 3339 time, such as 2026-01-31T12:00:00Z".to_owned())?;
        // RFC 3339 allows the year 0, and a UTC offset can exceed either bound.
        let micros = i64::try_from(time.unix_timestamp_nanos().div_euclid(1_000)).ok();
        micros.and_then(Self::from_micros).ok_or_else(|| OUT_OF_RANGE.to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uuids_are_generated_for_any_time() {
        for micros in [i64::MIN, -1, 0, 1_700_000_000_123_456, i64::MAX] {
            let time = Timestamp::from_micros(micros).unwrap_or_else(Timestamp::now);
            let (one, other) = (time.new_uuid(), time.new_uuid());
            assert_ne!(one, other, "{time}");
            assert_eq!(one.get_version_num(), 7);
        }
        let at = |micros| Timestamp::from_micros(micros).expect("in range").new_uuid();
        assert!(at(-62_135_596_800_000_000) < at(1_000) && at(1_000) < at(1_700_000_000_000_000));
    }

    #[test]
    fn timestamps_are_truncated_and_range_checked() {
        let text =
            |seconds, nanos| Timestamp::new("t", seconds, nanos).map(|time| time.to_string());
        assert_eq!(text(-1, 999_999_999).as_deref(), Ok("1969-12-31T23:59:59.999999Z"));
        assert_eq!(text(-62_135_596_800, 0).as_deref(), Ok("0001-01-01T00:00:00Z"));
        assert_eq!(text(253_402_300_799, 0).as_deref(), Ok("9999-12-31T23:59:59Z"));
        for (seconds, nanos, field) in [
            (253_402_300_800, 0, "t"),
            (-62_135_596_801, 999_999_999, "t"),
            (i64::MIN, 0, "t"),
            (i64::MAX / 1_000_000, 999_999_999, "t"),
            (0, -1, "t.nanos"),
            (0, i32::MAX, "t.nanos"),
        ] {
            assert_eq!(Timestamp::new("t", seconds, nanos).expect_err("invalid").field, field);
        }
    }

    #[test]
    fn times_are_parsed_with_any_offset() {
        let time: Timestamp = "2026-01-31T12:00:00.1234567+02:00".parse().expect("valid");
        assert_eq!(time.to_string(), "2026-01-31T10:00:00.123456Z");
        for text in ["yesterday", "0000-12-31T23:59:59Z", "9999-12-31T23:59:59-00:01"] {
            assert!(text.parse::<Timestamp>().is_err(), "{text}");
        }
    }
}
