//! Between the messages of the contract and the domain, without any decision of its own but what
//! the two can hold.

use std::time::Duration;

use bytes::Bytes;
use bytestring::ByteString;

use super::{as_struct, structure};
use crate::{
    event::{Event, EventKey, Name, NewEvent, Payload, Timestamp, Violation},
    ingest::ProcessCounters,
    limits::{EVENT_ENVELOPE_BYTES, MAX_RESPONSE_BYTES},
    proto::{
        incoming::{self, Content},
        outgoing, timestamp,
        v1::{self as pb, PayloadFormat},
    },
};

/// Collects what is wrong with a message, so that all of it is told at once.
#[derive(Default)]
pub(super) struct Violations(pub(super) Vec<Violation>);

impl Violations {
    /// The value, or else takes note of what is wrong.
    pub(super) fn check<T>(&mut self, checked: Result<T, Violation>) -> Option<T> {
        checked.map_err(|violation| self.0.push(violation)).ok()
    }
}

/// Checks an event that came in. Fields of its own that only the service sets are ignored.
pub(super) fn new_event(event: incoming::Event) -> Result<NewEvent, Vec<Violation>> {
    let mut violations = Violations::default();
    let incoming::Event { fields: event, repeated_content } = event;
    let mut name =
        |field, bytes| violations.check(text(field, bytes).and_then(|text| Name::new(field, text)));
    let topic = name("topic", event.topic);
    let event_id = name("event_id", event.event_id);
    let source = name("source", event.source);
    let timestamp = violations.check(event.timestamp.map(time("timestamp")).transpose());
    let payload = violations.check(match (repeated_content, event.content) {
        (Some(field), _) => Err(Violation::new(field, REPEATED)),
        (None, None) => Ok(Payload::default()),
        (None, Some(Content::PayloadJson(bytes))) => {
            text("payload_json", bytes).and_then(|text| Payload::new("payload_json", text))
        }
        (None, Some(Content::Payload(bytes))) => {
            structure::payload(&bytes).map_err(|fault| Violation::new("payload", fault))
        }
    });
    match (topic, event_id, timestamp, source, payload) {
        (Some(topic), Some(event_id), Some(timestamp), Some(source), Some(payload)) => {
            Ok(NewEvent { key: EventKey { topic, event_id }, timestamp, source, payload })
        }
        _ => Err(violations.0),
    }
}

const REPEATED: &str = "comes again in the same event; an event has one payload, sent as a whole";

fn text(field: &str, bytes: Bytes) -> Result<ByteString, Violation> {
    ByteString::try_from(bytes).map_err(|_| Violation::new(field, "must be UTF-8"))
}

/// Checks how payloads are to be given back.
pub(super) fn payload_format(format: i32) -> Result<PayloadFormat, Violation> {
    PayloadFormat::try_from(format)
        .map_err(|_| Violation::new("payload_format", "must be a format that the contract names"))
}

/// Checks a key that came in.
pub(super) fn event_key(key: pb::EventKey) -> Result<EventKey, Vec<Violation>> {
    let mut violations = Violations::default();
    let topic = violations.check(Name::new("topic", key.topic));
    let event_id = violations.check(Name::new("event_id", key.event_id));
    topic.zip(event_id).map(|(topic, event_id)| EventKey { topic, event_id }).ok_or(violations.0)
}

/// Checks a time that came in as `field`.
pub(super) fn time(field: &str) -> impl Fn(prost_types::Timestamp) -> Result<Timestamp, Violation> {
    move |time| Timestamp::new(field, time.seconds, time.nanos)
}

/// A duration for the wire.
pub(super) fn duration(duration: Duration) -> prost_types::Duration {
    prost_types::Duration {
        seconds: duration.as_secs() as i64,
        nanos: duration.subsec_nanos() as i32,
    }
}

/// Counters of this process for the wire.
pub(super) fn process_stats(counters: ProcessCounters) -> pb::ProcessStats {
    pb::ProcessStats {
        received: counters.judged.received,
        unique_processed: counters.judged.unique_processed,
        duplicate_dropped: counters.judged.duplicate_dropped,
        rejected: counters.rejected,
    }
}

/// A key for the wire.
pub(super) fn key(key: &EventKey) -> pb::EventKey {
    pb::EventKey { topic: key.topic.to_string(), event_id: key.event_id.to_string() }
}

/// Events of one response for the wire, which together fit it: as text they always do, and a
/// payload is a structure as long as there is room for that. There is one cursor for each.
/// `others` is how many bytes the response has beside them.
pub(super) fn events(
    events: Vec<Event>,
    cursors: impl IntoIterator<Item = String>,
    format: PayloadFormat,
    others: usize,
) -> Vec<outgoing::Event> {
    let as_text: usize =
        events.iter().map(|event| event.payload.as_str().len() + EVENT_ENVELOPE_BYTES).sum();
    let mut room = MAX_RESPONSE_BYTES.saturating_sub(as_text + others);
    events
        .into_iter()
        .zip(cursors)
        .map(|(event, cursor)| {
            let Event { key, timestamp: time, source, payload, received_at, .. } = event;
            let structure = match format {
                PayloadFormat::Json => None,
                PayloadFormat::Unspecified | PayloadFormat::Struct => {
                    as_struct::structure(payload.as_str()).and_then(|structure| {
                        let more = structure.len().saturating_sub(payload.as_str().len());
                        room = room.checked_sub(more)?;
                        Some(structure)
                    })
                }
            };
            outgoing::Event {
                topic: key.topic.into_string(),
                event_id: key.event_id.into_string(),
                timestamp: Some(timestamp(time)),
                source: source.into_string(),
                content: Some(match structure {
                    Some(structure) => outgoing::event::Content::Payload(structure),
                    None => outgoing::event::Content::PayloadJson(payload.into_string()),
                }),
                received_at: Some(timestamp(received_at)),
                cursor,
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_before_1970_keep_positive_nanos() {
        let time = Timestamp::new("t", -1, 999_999_000).expect("valid");
        assert_eq!(timestamp(time), prost_types::Timestamp { seconds: -1, nanos: 999_999_000 });
    }
}
