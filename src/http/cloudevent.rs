//! Decodes CloudEvents 1.0 in the JSON format.
//!
//! The attributes `subject`, `dataschema` and extensions are not stored; the response names them.

use serde_json::value::RawValue;

use super::fields::{Fields, string};
use crate::event::{EventKey, NewEvent, Payload, Violation};

/// Media type of one event.
pub(super) const ONE: &str = "application/cloudevents+json";

/// Media type of an array of events.
pub(super) const BATCH: &str = "application/cloudevents-batch+json";

/// A header that every request in binary mode has. It is not supported.
pub(super) const BINARY_MODE: &str = "ce-specversion";

/// Decodes an event from a JSON object. Also returns the names of attributes that are not stored.
pub(super) fn read(text: &RawValue) -> Result<(NewEvent, Vec<String>), Vec<Violation>> {
    // An attribute that is null is absent; data that is null is data.
    let mut fields = Fields::read(text).map_err(|fault| vec![fault])?.without_nulls("data");
    let mut violations = Vec::new();
    violations.extend(version(&mut fields).err());
    let mut name = |field| fields.name(field).map_err(|violation| violations.push(violation)).ok();
    let (event_id, source, topic) = (name("id"), name("source"), name("type"));
    let timestamp = fields.time("time").map_err(|violation| violations.push(violation)).ok();
    violations.extend(content_type(&mut fields).err());
    if fields.take("data_base64").is_some() {
        violations
            .push(Violation::new("data_base64", "is not supported; send data, a JSON object"));
    }
    let payload = match fields.take("data") {
        Some(text) => Payload::new("data", text.get().to_owned()),
        None => Ok(Payload::default()),
    };
    let payload = payload.map_err(|violation| violations.push(violation)).ok();
    match (topic, event_id, source, timestamp, payload) {
        (Some(topic), Some(event_id), Some(source), Some(timestamp), Some(payload))
            if violations.is_empty() =>
        {
            let event = NewEvent { key: EventKey { topic, event_id }, timestamp, source, payload };
            Ok((event, fields.rest().collect()))
        }
        _ => Err(violations),
    }
}

fn version(fields: &mut Fields<'_>) -> Result<(), Violation> {
    const NAME: &str = "specversion";
    match fields.take(NAME) {
        Some(text) if string(NAME, text)? == "1.0" => Ok(()),
        Some(_) => Err(Violation::new(NAME, "must be 1.0")),
        None => Err(Violation::new(NAME, "is missing; it must be 1.0")),
    }
}

fn content_type(fields: &mut Fields<'_>) -> Result<(), Violation> {
    const NAME: &str = "datacontenttype";
    let Some(text) = fields.take(NAME) else { return Ok(()) };
    let text = string(NAME, text)?;
    let media_type = text.split(';').next().unwrap_or_default().trim();
    match media_type.eq_ignore_ascii_case("application/json") {
        true => Ok(()),
        false => Err(Violation::new(NAME, "must be application/json, or absent")),
    }
}
