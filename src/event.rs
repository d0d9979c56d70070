//! Events: the candidate that a producer sends, the event that is kept, and the verdict between the
//! two. What is here is valid by construction and knows no wire format and no store.

use std::{fmt, ops::Deref, str::FromStr};

use bytestring::ByteString;
use time::{OffsetDateTime, format_description::well_known::Rfc3339};
use uuid::Uuid;

use crate::{
    json::{self, Document},
    limits::MAX_NAME_BYTES,
};

/// What is wrong with one field, for the person who sent it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// Path of the field, as it is called in the contract.
    pub field: String,
    /// Reads on after the field's name: "must not be empty".
    pub description: String,
}

impl Violation {
    /// A violation of `field`.
    pub fn new(field: impl Into<String>, description: impl Into<String>) -> Self {
        Self { field: field.into(), description: description.into() }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.field, self.description)
    }
}

/// A topic, event id or source: 1 to 255 bytes, no control characters, no white space at either
/// end. Two names are the same only if all their bytes are.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name(ByteString);

impl Name {
    /// Checks a name that came in as `field`.
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

    /// A name read back from a store, which holds only names that were checked.
    pub(crate) fn stored(text: String) -> Self {
        Self(text.into())
    }
}

/// Whether a text is only letters, digits and signs of ASCII, as most names are. Without an early
/// end, which is what lets the compiler look at many bytes at once.
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

/// The key under which an event is kept exactly once.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EventKey {
    /// Name of the stream of events.
    pub topic: Name,
    /// The producer's id of the event within the topic.
    pub event_id: Name,
}

/// A payload: the text of a JSON object, exactly as it came in.
#[derive(Debug, Clone)]
pub struct Payload(ByteString);

impl Payload {
    /// Checks a payload that came in as `field`.
    pub fn new(field: &str, text: impl Into<ByteString>) -> Result<Self, Violation> {
        let text = text.into();
        match json::check_object(&text) {
            Ok(()) => Ok(Self(text)),
            Err(fault) => Err(Violation::new(field, fault)),
        }
    }

    /// A payload that needs no check: read back from a store, or written by this program.
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

    /// Whether this and the text of another payload are the same JSON value, however it is written.
    pub fn is_same_value(&self, other: &str) -> bool {
        Document::new(&self.0).is_same_value(other)
    }
}

impl Default for Payload {
    fn default() -> Self {
        Self(ByteString::from_static("{}"))
    }
}

/// A time in the years 1 to 9999, which is what RFC 3339 and both stores can hold, kept to the
/// microsecond.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Timestamp(i64);

const OUT_OF_RANGE: &str = "must be between the years 1 and 9999";

impl Timestamp {
    const YEAR_1: i64 = -62_135_596_800_000_000;
    const YEAR_10000: i64 = 253_402_300_800_000_000;

    /// Now, by the clock of this machine.
    pub fn now() -> Self {
        Self::from(OffsetDateTime::now_utc())
    }

    /// A new UUID of version 7 with this time; one before 1970 counts as 1970, and random bits tell those
    /// ids apart.
    pub fn new_uuid(self) -> Uuid {
        let micros = self.as_micros().max(0) as u64;
        let nanos = (micros % 1_000_000) as u32 * 1_000;
        Uuid::new_v7(uuid::Timestamp::from_unix(uuid::NoContext, micros / 1_000_000, nanos))
    }

    /// A time that came in as `field`, cut to the microsecond.
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

    /// A time as microseconds since 1970, if it is in range.
    pub fn from_micros(micros: i64) -> Option<Self> {
        (Self::YEAR_1..Self::YEAR_10000).contains(&micros).then_some(Self(micros))
    }

    /// Microseconds since 1970, negative before.
    pub fn as_micros(self) -> i64 {
        self.0
    }
}

impl From<OffsetDateTime> for Timestamp {
    fn from(time: OffsetDateTime) -> Self {
        // What is out of range at most by its offset from UTC becomes the nearest that is not.
        let micros = time.unix_timestamp_nanos().div_euclid(1_000);
        let range = i128::from(Self::YEAR_1)..=i128::from(Self::YEAR_10000 - 1);
        Self(micros.clamp(*range.start(), *range.end()) as i64)
    }
}

impl From<Timestamp> for OffsetDateTime {
    fn from(time: Timestamp) -> Self {
        // Cannot fail: the type holds all times in our range.
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
        // The year 0 can be written, and an offset from UTC leads beyond the bounds on either side.
        let micros = i64::try_from(time.unix_timestamp_nanos().div_euclid(1_000)).ok();
        micros.and_then(Self::from_micros).ok_or_else(|| OUT_OF_RANGE.to_owned())
    }
}

/// A valid event that a producer sent; whether it is new is not known yet.
#[derive(Debug, Clone)]
pub struct NewEvent {
    /// Its identity.
    pub key: EventKey,
    /// When it happened, if the producer said so.
    pub timestamp: Option<Timestamp>,
    /// Who sent it.
    pub source: Name,
    /// What it says.
    pub payload: Payload,
}

impl NewEvent {
    /// Bytes of its text.
    pub fn bytes(&self) -> usize {
        let Self { key, source, payload, .. } = self;
        key.topic.len() + key.event_id.len() + source.len() + payload.as_str().len()
    }
}

/// An event that is kept.
#[derive(Debug, Clone)]
pub struct Event {
    /// Its identity.
    pub key: EventKey,
    /// When it happened, by its producer, or else when it was received.
    pub timestamp: Timestamp,
    /// Who sent it.
    pub source: Name,
    /// What it says.
    pub payload: Payload,
    /// When it was received.
    pub received_at: Timestamp,
    /// Where it stands in the order of commits.
    pub position: Position,
}

/// A place in the order of commits: within a lane, sequence numbers rise with every commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    /// The serial commit queue that the event went through.
    pub lane: u16,
    /// Its number there.
    pub seq: i64,
}

/// What became of one event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Outcome {
    /// Whether it was new.
    pub verdict: Verdict,
    /// When the event with this key was first stored.
    pub first_received_at: Timestamp,
    /// Bytes of the stored payload that this one was compared with, beyond its own.
    pub compared_bytes: usize,
}

/// Whether an event was new.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// New, and stored.
    Accepted,
    /// Stored before, with the same content.
    Duplicate,
    /// Another event is stored under its key.
    Conflict(Difference),
}

/// The fields in which a repeated event differs from the stored one.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Difference {
    /// Both gave a timestamp, and not the same one.
    pub timestamp: bool,
    /// The sources differ.
    pub source: bool,
    /// The payloads differ as JSON values.
    pub payload: bool,
}

impl Difference {
    /// The fields by name.
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
    fn ids_are_made_whatever_the_clock_says() {
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
    fn names_are_taken_byte_by_byte() {
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
    fn timestamps_are_cut_to_the_microsecond_and_to_four_digit_years() {
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
    fn times_are_read_with_any_offset() {
        let time: Timestamp = "2026-01-31T12:00:00.1234567+02:00".parse().expect("valid");
        assert_eq!(time.to_string(), "2026-01-31T10:00:00.123456Z");
        for text in ["yesterday", "0000-12-31T23:59:59Z", "9999-12-31T23:59:59-00:01"] {
            assert!(text.parse::<Timestamp>().is_err(), "{text}");
        }
    }
}
