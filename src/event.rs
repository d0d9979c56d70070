//! Events: what a producer sends, what is stored, and the verdict in between. All values are valid
//! by construction. Nothing here depends on a wire format or a store.

use std::{fmt, ops::Deref, str::FromStr};

use bytestring::ByteString;
use time::{OffsetDateTime, format_description::well_known::Rfc3339};
use uuid::Uuid;

use crate::{
    json::{self, Document},
    limits::MAX_NAME_BYTES,
};

pub use self::violation::{Violation, Violations};

mod violation;

/// A topic, event id or source: 1 to 255 bytes, without control characters, and without whitespace
/// at either end. Names are compared byte by byte.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name(ByteString);

impl Name {
    /// Validates a name of `field`.
    pub fn new(field: &str, text: impl Into<ByteString>) -> Result<Self, Violation> {
        let text = text.into();
        let fault = if text.is_empty() {
            "must not be empty".to_owned()
        } else if text.len() > MAX_NAME_BYTES {
            format!("is {} bytes long; the limit is {MAX_NAME_BYTES}", text.len())
        } else if is_graphic(&text) {
            return Ok(Self(text));
        } else if text.chars().any(char::is_control) {
            "must not contain control characters".to_owned()
        } else if text.trim().len() < text.len() {
            "must not start or end with whitespace".to_owned()
        } else {
            return Ok(Self(text));
        };
        Err(Violation::new(field, fault))
    }

    /// The text.
    pub fn into_string(self) -> String {
        self.0.into()
    }

    /// A name from a store, which was validated before.
    pub(crate) fn stored(text: String) -> Self {
        Self(text.into())
    }
}

/// Whether all characters are printable ASCII without spaces, as in most names. There is no early
/// return, so that the compiler can vectorize it.
fn is_graphic(text: &str) -> bool {
    text.bytes().fold(true, |graphic, byte| graphic & byte.is_ascii_graphic())
}

impl Deref for Name {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The key of an event, under which it is stored exactly once.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EventKey {
    /// Topic, a stream of events.
    pub topic: Name,
    /// The producer's event id, unique within the topic.
    pub event_id: Name,
}

/// A payload: the text of a JSON object, exactly as it was received.
#[derive(Debug, Clone)]
pub struct Payload(ByteString);

impl Payload {
    /// Validates a payload of `field`.
    pub fn new(field: &str, text: impl Into<ByteString>) -> Result<Self, Violation> {
        let text = text.into();
        match json::check_object(&text) {
            Ok(()) => Ok(Self(text)),
            Err(fault) => Err(Violation::new(field, fault)),
        }
    }

    /// A payload that is known to be valid: from a store, or written by this program.
    pub(crate) fn trusted(text: impl Into<ByteString>) -> Self {
        Self(text.into())
    }

    /// The JSON text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The JSON text.
    pub fn into_string(self) -> String {
        self.0.into()
    }

    /// Whether both payloads are the same JSON value, regardless of formatting.
    pub fn is_same_value(&self, other: &str) -> bool {
        Document::new(&self.0).is_same_value(other)
    }
}

impl Default for Payload {
    fn default() -> Self {
        Self(ByteString::from_static("{}"))
    }
}

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

/// A valid event from a producer, before deduplication.
#[derive(Debug, Clone)]
pub struct NewEvent {
    /// Topic and event id.
    pub key: EventKey,
    /// When it happened, if the producer set it.
    pub timestamp: Option<Timestamp>,
    /// The producer.
    pub source: Name,
    /// The payload.
    pub payload: Payload,
}

impl NewEvent {
    /// Bytes of its text fields.
    pub fn bytes(&self) -> usize {
        let Self { key, source, payload, .. } = self;
        key.topic.len() + key.event_id.len() + source.len() + payload.as_str().len()
    }
}

/// A stored event.
#[derive(Debug, Clone)]
pub struct Event {
    /// Topic and event id.
    pub key: EventKey,
    /// When it happened, or when it was received if the producer did not set it.
    pub timestamp: Timestamp,
    /// The producer.
    pub source: Name,
    /// The payload.
    pub payload: Payload,
    /// When it was received.
    pub received_at: Timestamp,
    /// Position in commit order.
    pub position: Position,
}

/// A position in commit order. Within a lane, numbers increase with each commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    /// The lane, a serial commit queue.
    pub lane: u16,
    /// Number of the event in the lane.
    pub seq: i64,
}

/// The result of publishing one event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Outcome {
    /// Whether the event was new.
    pub verdict: Verdict,
    /// When the event with this key was first stored.
    pub first_received_at: Timestamp,
    /// Bytes of the stored payload that were compared, beyond those of this event.
    pub compared_bytes: usize,
}

/// Whether an event was new.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// New, and stored.
    Accepted,
    /// Already stored, with the same content.
    Duplicate,
    /// Another event with this key is stored.
    Conflict(Difference),
}

/// The fields in which an event differs from the stored one.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Difference {
    /// Both have a timestamp, and they differ.
    pub timestamp: bool,
    /// The sources differ.
    pub source: bool,
    /// The payloads differ as JSON values.
    pub payload: bool,
}

impl Difference {
    /// Names of the fields.
    pub fn fields(self) -> impl Iterator<Item = &'static str> {
        [("timestamp", self.timestamp), ("source", self.source), ("payload", self.payload)]
            .into_iter()
            .filter_map(|(field, differs)| differs.then_some(field))
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
    fn names_are_validated() {
        for text in ["a", "ü", "a b", "A", &"x".repeat(255)] {
            assert_eq!(&*Name::new("topic", text.to_owned()).expect(text), text);
        }
        for (text, fault) in [
            ("", "empty"),
            (" a", "whitespace"),
            ("a\u{a0}", "whitespace"),
            ("a\0b", "control"),
            ("a\nb", "control"),
            (&"ü".repeat(128), "256 bytes"),
        ] {
            let violation = Name::new("topic", text.to_owned()).expect_err(text);
            assert_eq!(violation.field, "topic");
            assert!(violation.description.contains(fault), "{violation}");
        }
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
