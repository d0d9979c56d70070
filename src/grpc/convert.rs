//! Conversions between Protobuf messages and domain types.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use bytestring::ByteString;
use uuid::Uuid;

use super::{json_to_struct, status::status_message, struct_to_json};
use crate::{
    api::{Decoded, Error, EventResult, Published},
    cursor::Cursor,
    event::{Event, EventKey, Name, NewEvent, Payload, Timestamp, Verdict, Violation, Violations},
    ingest::ProcessCounters,
    limits::{EVENT_ENVELOPE_BYTES, MAX_RESPONSE_BYTES},
    proto::{
        timestamp,
        v1::{self as pb, PayloadFormat, PublishStatus},
        wire::{self, Content, EventFields},
    },
};

/// Decodes an event. Fields that only the server sets are ignored.
pub(super) fn new_event(event: wire::Event) -> Decoded {
    let mut violations = Violations::default();
    let wire::Event { fields: event, repeated_content } = event;
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
            struct_to_json::payload(&bytes).map_err(|fault| Violation::new("payload", fault))
        }
    });
    match (topic, event_id, timestamp, source, payload) {
        (Some(topic), Some(event_id), Some(timestamp), Some(source), Some(payload)) => {
            Ok(NewEvent { key: EventKey { topic, event_id }, timestamp, source, payload })
        }
        _ => Err(Error::invalid(violations.into_vec())),
    }
}

const REPEATED: &str = "occurs more than once in the event; send one payload in one part";

fn text(field: &str, bytes: Bytes) -> Result<ByteString, Violation> {
    ByteString::try_from(bytes).map_err(|_| Violation::new(field, "must be UTF-8"))
}

/// Decodes the format in which payloads are returned.
pub(super) fn payload_format(format: i32) -> Result<PayloadFormat, Violation> {
    PayloadFormat::try_from(format)
        .map_err(|_| Violation::new("payload_format", "is not a known payload format"))
}

/// Decodes a key. `path` is its path in the request.
pub(super) fn event_key(
    key: pb::EventKey,
    path: &str,
    violations: &mut Violations,
) -> Option<EventKey> {
    let topic = violations.check(Name::new(&format!("{path}topic"), key.topic));
    let event_id = violations.check(Name::new(&format!("{path}event_id"), key.event_id));
    topic.zip(event_id).map(|(topic, event_id)| EventKey { topic, event_id })
}

/// Decodes the time in `field`.
pub(super) fn time(field: &str) -> impl Fn(prost_types::Timestamp) -> Result<Timestamp, Violation> {
    move |time| Timestamp::new(field, time.seconds, time.nanos)
}

/// Encodes a duration.
pub(super) fn duration(duration: Duration) -> prost_types::Duration {
    prost_types::Duration {
        seconds: duration.as_secs() as i64,
        nanos: duration.subsec_nanos() as i32,
    }
}

/// Encodes the counters of this process.
pub(super) fn process_stats(counters: ProcessCounters) -> pb::ProcessStats {
    pb::ProcessStats {
        received: counters.judged.received,
        unique_processed: counters.judged.unique_processed,
        duplicate_dropped: counters.judged.duplicate_dropped,
        rejected: counters.rejected,
    }
}

/// Encodes a key.
pub(super) fn key(key: &EventKey) -> pb::EventKey {
    pb::EventKey { topic: key.topic.to_string(), event_id: key.event_id.to_string() }
}

/// Encodes the results of a request.
pub(super) fn published(published: Published) -> pb::PublishResponse {
    pb::PublishResponse {
        received: published.counters.received,
        unique_processed: published.counters.unique_processed,
        duplicate_dropped: published.counters.duplicate_dropped,
        conflicts: published.counters.conflicts,
        rejected: published.rejected,
        results: published.results.into_iter().map(event_result).collect(),
    }
}

fn event_result(result: EventResult) -> pb::PublishResult {
    let outcome = match result {
        EventResult::Stored(outcome) => outcome,
        EventResult::Rejected(error) => {
            return pb::PublishResult {
                status: PublishStatus::Rejected.into(),
                error: Some(status_message(Arc::unwrap_or_clone(error))),
                ..pb::PublishResult::default()
            };
        }
    };
    let (status, differing_fields) = match outcome.verdict {
        Verdict::Accepted => (PublishStatus::Accepted, Vec::new()),
        Verdict::Duplicate => (PublishStatus::Duplicate, Vec::new()),
        Verdict::Conflict(difference) => {
            (PublishStatus::Conflict, difference.fields().map(str::to_owned).collect())
        }
    };
    pb::PublishResult {
        status: status.into(),
        first_received_at: Some(timestamp(outcome.first_received_at)),
        differing_fields,
        error: None,
    }
}

/// Encodes the events of one response, each with the cursor after it. Payloads that would exceed
/// the size limit as a `Struct` are encoded as JSON text, which always fits. `others` is the size
/// of the rest of the response in bytes.
pub(super) fn events(
    events: Vec<(Event, Cursor)>,
    store: Uuid,
    format: PayloadFormat,
    others: usize,
) -> Vec<wire::Event> {
    let as_text: usize =
        events.iter().map(|(event, _)| event.payload.as_str().len() + EVENT_ENVELOPE_BYTES).sum();
    let mut available = MAX_RESPONSE_BYTES.saturating_sub(as_text + others);
    events
        .into_iter()
        .map(|(event, cursor)| {
            let Event { key, timestamp: time, source, payload, received_at, .. } = event;
            let structure = match format {
                PayloadFormat::Json => None,
                PayloadFormat::Unspecified | PayloadFormat::Struct => {
                    json_to_struct::structure(payload.as_str()).and_then(|structure| {
                        let more = structure.len().saturating_sub(payload.as_str().len());
                        available = available.checked_sub(more)?;
                        Some(structure)
                    })
                }
            };
            wire::Event::from(EventFields {
                topic: key.topic.into_bytes(),
                event_id: key.event_id.into_bytes(),
                timestamp: Some(timestamp(time)),
                source: source.into_bytes(),
                content: Some(match structure {
                    Some(structure) => Content::Payload(structure),
                    None => Content::PayloadJson(payload.into_bytes()),
                }),
                received_at: Some(timestamp(received_at)),
                cursor: cursor.encode(store).into(),
            })
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
