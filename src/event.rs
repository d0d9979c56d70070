//! Events: what a producer sends, what is stored, and the verdict in between. All values are valid
//! by construction. Nothing here depends on a wire format or a store.

use std::{fmt, ops::Deref};

use bytes::Bytes;
use bytestring::ByteString;

use crate::{
    json::{self, Document},
    limits::MAX_NAME_BYTES,
};

pub use self::{
    timestamp::Timestamp,
    violation::{Violation, Violations},
};

mod timestamp;

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

    /// The text in UTF-8, without a copy.
    pub fn into_bytes(self) -> Bytes {
        self.0.into_bytes()
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

    /// The JSON text in UTF-8, without a copy.
    pub fn into_bytes(self) -> Bytes {
        self.0.into_bytes()
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
}
