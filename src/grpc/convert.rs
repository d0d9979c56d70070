//! Between the messages of the contract and the domain, without any decision of its own but what
//! the two can hold.

use std::time::Duration;

use prost::Message;
use prost_types::{ListValue, Struct, Value, value::Kind};
use serde_json::Number;

use crate::{
    event::{Event, EventKey, Name, NewEvent, Payload, Timestamp, Violation},
    ingest::ProcessCounters,
    json,
    limits::{EVENT_ENVELOPE_BYTES, MAX_RESPONSE_BYTES, MAX_SAFE_INTEGER},
    proto::{
        timestamp,
        v1::{self as pb, PayloadFormat, event::Content},
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
pub(super) fn new_event(event: pb::Event) -> Result<NewEvent, Vec<Violation>> {
    let mut violations = Violations::default();
    let topic = violations.check(Name::new("topic", event.topic));
    let event_id = violations.check(Name::new("event_id", event.event_id));
    let timestamp = violations.check(event.timestamp.map(time("timestamp")).transpose());
    let source = violations.check(Name::new("source", event.source));
    let payload = violations.check(match event.content {
        None => Ok(Payload::default()),
        Some(Content::PayloadJson(text)) => Payload::new("payload_json", text),
        Some(Content::Payload(payload)) => struct_text(&payload)
            .map_err(|fault| Violation::new("payload", fault))
            .and_then(|text| Payload::new("payload", text)),
    });
    match (topic, event_id, timestamp, source, payload) {
        (Some(topic), Some(event_id), Some(timestamp), Some(source), Some(payload)) => {
            Ok(NewEvent { key: EventKey { topic, event_id }, timestamp, source, payload })
        }
        _ => Err(violations.0),
    }
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
/// payload is a structure as long as there is room for that.
/// `others` is how many bytes the response has beside them.
pub(super) fn events(events: Vec<Event>, format: PayloadFormat, others: usize) -> Vec<pb::Event> {
    let as_text: usize =
        events.iter().map(|event| event.payload.as_str().len() + EVENT_ENVELOPE_BYTES).sum();
    let mut room = MAX_RESPONSE_BYTES.saturating_sub(as_text + others);
    events
        .into_iter()
        .map(|event| {
            let Event { key, timestamp: time, source, payload, received_at, .. } = event;
            let structure = match format {
                PayloadFormat::Json => None,
                PayloadFormat::Unspecified | PayloadFormat::Struct => {
                    structure(&payload).and_then(|structure| {
                        let more = structure.encoded_len().saturating_sub(payload.as_str().len());
                        room = room.checked_sub(more)?;
                        Some(structure)
                    })
                }
            };
            pb::Event {
                topic: key.topic.to_string(),
                event_id: key.event_id.to_string(),
                timestamp: Some(timestamp(time)),
                source: source.to_string(),
                content: Some(match structure {
                    Some(structure) => Content::Payload(structure),
                    None => Content::PayloadJson(payload.into_string()),
                }),
                received_at: Some(timestamp(received_at)),
                cursor: String::new(),
            }
        })
        .collect()
}

/// The payload as a structure, if that changes nothing.
fn structure(payload: &Payload) -> Option<Struct> {
    if json::has_unsafe_integer(payload.as_str()) {
        return None;
    }
    match value(serde_json::from_str(payload.as_str()).ok()?).kind {
        Some(Kind::StructValue(structure)) => Some(structure),
        _ => None,
    }
}

fn value(json: serde_json::Value) -> Value {
    use serde_json::Value as Json;
    let kind = match json {
        Json::Null => Kind::NullValue(0),
        Json::Bool(value) => Kind::BoolValue(value),
        Json::Number(number) => Kind::NumberValue(number.as_f64().unwrap_or_default()),
        Json::String(text) => Kind::StringValue(text),
        Json::Array(items) => {
            Kind::ListValue(ListValue { values: items.into_iter().map(value).collect() })
        }
        Json::Object(entries) => {
            let fields = entries.into_iter().map(|(key, json)| (key, value(json))).collect();
            Kind::StructValue(Struct { fields })
        }
    };
    Value { kind: Some(kind) }
}

/// A structure as JSON text. The error says what JSON cannot hold.
fn struct_text(structure: &Struct) -> Result<String, String> {
    let mut text = String::new();
    write_struct(structure, &mut text)?;
    Ok(text)
}

fn write_struct(structure: &Struct, text: &mut String) -> Result<(), String> {
    text.push('{');
    for (place, (key, value)) in structure.fields.iter().enumerate() {
        if place > 0 {
            text.push(',');
        }
        write_string(key, text);
        text.push(':');
        write_value(value, text)?;
    }
    text.push('}');
    Ok(())
}

fn write_value(value: &Value, text: &mut String) -> Result<(), String> {
    match &value.kind {
        None => return Err("has a value of no kind".to_owned()),
        Some(Kind::NullValue(_)) => text.push_str("null"),
        Some(Kind::BoolValue(value)) => text.push_str(if *value { "true" } else { "false" }),
        Some(Kind::NumberValue(number)) => write_number(*number, text)?,
        Some(Kind::StringValue(string)) => write_string(string, text),
        Some(Kind::StructValue(structure)) => write_struct(structure, text)?,
        Some(Kind::ListValue(list)) => {
            text.push('[');
            for (place, item) in list.values.iter().enumerate() {
                if place > 0 {
                    text.push(',');
                }
                write_value(item, text)?;
            }
            text.push(']');
        }
    }
    Ok(())
}

fn write_string(string: &str, text: &mut String) {
    text.push_str(&serde_json::Value::from(string).to_string());
}

fn write_number(number: f64, text: &mut String) -> Result<(), String> {
    let Some(finite) = Number::from_f64(number) else {
        return Err("has a number that is not finite".to_owned());
    };
    if number.fract() != 0.0 {
        text.push_str(&finite.to_string());
    } else if number.abs() <= MAX_SAFE_INTEGER as f64 {
        text.push_str(&(number as i64).to_string());
    } else {
        return Err("has a whole number beyond 2^53, which the structure may already have \
                    changed; send it as payload_json, or as a string"
            .to_owned());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn structures_survive_the_way_there_and_back() {
        let text = r#"{"a":[1,-2.5,true,null,{"ü\"\n":"x"}],"big":9007199254740992}"#;
        let payload = Payload::new("payload", text.to_owned()).expect("valid");
        let structure = structure(&payload).expect("no unsafe integers");
        assert_eq!(struct_text(&structure).as_deref(), Ok(text));
    }

    #[test]
    fn numbers_that_json_or_a_float_cannot_hold_are_refused() {
        for number in [f64::NAN, f64::INFINITY, 9007199254740994.0, -1e300] {
            assert!(write_number(number, &mut String::new()).is_err(), "{number}");
        }
        let mut text = String::new();
        write_number(-0.0, &mut text).expect("zero");
        assert_eq!(text, "0");
    }

    #[test]
    fn times_before_1970_keep_positive_nanos() {
        let time = Timestamp::new("t", -1, 999_999_000).expect("valid");
        assert_eq!(timestamp(time), prost_types::Timestamp { seconds: -1, nanos: 999_999_000 });
    }
}
