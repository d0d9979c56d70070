//! Events as JSON objects: decoding new ones and encoding stored ones.

use serde::Serialize;
use serde_json::value::RawValue;

use super::fields::Fields;
use crate::{
    event::{Event, EventKey, NewEvent, Payload, Violation},
    limits::MAX_VIOLATIONS,
};

/// Decodes an event from a JSON object.
pub(super) fn read(text: &RawValue) -> Result<NewEvent, Vec<Violation>> {
    let mut fields = Fields::read(text).map_err(|fault| vec![fault])?;
    let mut violations = Vec::new();
    let mut name = |field| fields.name(field).map_err(|violation| violations.push(violation)).ok();
    let (topic, event_id, source) = (name("topic"), name("event_id"), name("source"));
    let timestamp = fields.time("timestamp").map_err(|violation| violations.push(violation)).ok();
    let payload = match fields.take("payload") {
        Some(text) => Payload::new("payload", text.get().to_owned()),
        None => Ok(Payload::default()),
    };
    let payload = payload.map_err(|violation| violations.push(violation)).ok();
    let rest = "is an unknown field; known ones are topic, event_id, timestamp, source, payload";
    // Errors report at most so many.
    let unknown = fields.rest().take(MAX_VIOLATIONS);
    violations.extend(unknown.map(|field| Violation::new(field, rest)));
    match (topic, event_id, source, timestamp, payload) {
        (Some(topic), Some(event_id), Some(source), Some(timestamp), Some(payload))
            if violations.is_empty() =>
        {
            Ok(NewEvent { key: EventKey { topic, event_id }, timestamp, source, payload })
        }
        _ => Err(violations),
    }
}

/// A stored event as JSON.
#[derive(Debug, Serialize)]
pub(super) struct EventJson {
    topic: String,
    event_id: String,
    timestamp: String,
    source: String,
    /// The text that was published.
    payload: Box<RawValue>,
    received_at: String,
    cursor: String,
}

impl EventJson {
    /// Fails only if the stored payload is not JSON.
    pub(super) fn new(event: Event, cursor: String) -> serde_json::Result<Self> {
        Ok(Self {
            topic: event.key.topic.into_string(),
            event_id: event.key.event_id.into_string(),
            timestamp: event.timestamp.to_string(),
            source: event.source.into_string(),
            payload: RawValue::from_string(event.payload.into_string())?,
            received_at: event.received_at.to_string(),
            cursor,
        })
    }
}
