//! Events as JSON objects: how they come in and how they are given back.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::value::RawValue;

use crate::event::{Event, EventKey, Name, NewEvent, Payload, Timestamp, Violation};

/// Checks an event that came in as the text of a JSON object.
pub(super) fn read(text: &RawValue) -> Result<NewEvent, Vec<Violation>> {
    let Ok(mut fields) = serde_json::from_str::<BTreeMap<String, &RawValue>>(text.get()) else {
        return Err(vec![Violation::new("event", "must be a JSON object")]);
    };
    let mut violations = Vec::new();
    let mut name = |field: &str| {
        let text = match fields.remove(field) {
            Some(text) => string(field, text),
            None => Err(Violation::new(field, "is missing")),
        };
        let name = text.and_then(|text| Name::new(field, text));
        name.map_err(|violation| violations.push(violation)).ok()
    };
    let (topic, event_id, source) = (name("topic"), name("event_id"), name("source"));
    let timestamp = fields.remove("timestamp").filter(|text| text.get() != "null").map(|text| {
        let time = string("timestamp", text)?;
        time.parse::<Timestamp>().map_err(|fault| Violation::new("timestamp", fault))
    });
    let timestamp = timestamp.transpose().map_err(|violation| violations.push(violation)).ok();
    let payload = match fields.remove("payload") {
        Some(text) => Payload::new("payload", text.get().to_owned()),
        None => Ok(Payload::default()),
    };
    let payload = payload.map_err(|violation| violations.push(violation)).ok();
    violations.extend(fields.into_keys().map(|field| {
        Violation::new(
            field,
            "is no field of an event: topic, event_id, timestamp, source, payload",
        )
    }));
    match (topic, event_id, source, timestamp, payload) {
        (Some(topic), Some(event_id), Some(source), Some(timestamp), Some(payload))
            if violations.is_empty() =>
        {
            Ok(NewEvent { key: EventKey { topic, event_id }, timestamp, source, payload })
        }
        _ => Err(violations),
    }
}

fn string(field: &str, text: &RawValue) -> Result<String, Violation> {
    serde_json::from_str(text.get()).map_err(|_| Violation::new(field, "must be a string"))
}

/// An event that is given back.
#[derive(Debug, Serialize)]
pub(super) struct Given {
    topic: String,
    event_id: String,
    timestamp: String,
    source: String,
    /// As it came in.
    payload: Box<RawValue>,
    received_at: String,
    cursor: String,
}

impl Given {
    /// Fails only if the store holds what is no JSON.
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
