//! Events as NDJSON: what `list` prints and `publish --file` reads.

use std::{borrow::Cow, io};

use anyhow::{anyhow, bail};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::terminal::{self, Escape};
use crate::{
    event::Timestamp,
    proto::{
        timestamp,
        v1::{Event, event::Content},
    },
};

/// One line. Fields that only the service sets are accepted and ignored.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    #[serde(default)]
    topic: String,
    #[serde(default)]
    event_id: String,
    #[serde(default)]
    timestamp: Option<String>,
    #[serde(default)]
    source: String,
    #[serde(default)]
    payload: Option<Box<RawValue>>,
    #[serde(default)]
    received_at: Option<String>,
    #[serde(default)]
    cursor: Option<String>,
}

/// Parses a line. The service validates the event.
pub(super) fn read(line: &str) -> anyhow::Result<Event> {
    // A byte order mark may precede the first line.
    let line = line.trim_start_matches('\u{feff}').trim();
    if !line.starts_with('{') {
        bail!("is not a JSON object");
    }
    let line: Line = serde_json::from_str(line).map_err(|error| {
        anyhow!("is not an event: {}", error.to_string().replace(" at line 1 column", " at column"))
    })?;
    let time = line.timestamp.map(|time| time.parse::<Timestamp>()).transpose();
    Ok(Event {
        topic: line.topic,
        event_id: line.event_id,
        timestamp: time.map_err(|fault| anyhow!("timestamp {fault}"))?.map(timestamp),
        source: line.source,
        content: line.payload.map(|text| Content::PayloadJson(text.get().to_owned())),
        ..Event::default()
    })
}

/// Formats an event as one line, without a line break.
pub(super) fn write(event: &Event) -> anyhow::Result<String> {
    let payload = match &event.content {
        Some(Content::PayloadJson(text)) => {
            Some(RawValue::from_string(one_line(text).into_owned())?)
        }
        _ => None,
    };
    let line = Line {
        topic: event.topic.clone(),
        event_id: event.event_id.clone(),
        timestamp: Some(time(event.timestamp.as_ref())),
        source: event.source.clone(),
        payload,
        received_at: Some(time(event.received_at.as_ref())),
        cursor: Some(event.cursor.clone()),
    };
    Ok(serde_json::to_string(&line)?)
}

/// Formats an event as one line for standard output, escaped if that is a terminal.
pub(super) fn shown(event: &Event) -> anyhow::Result<String> {
    let line = write(event)?;
    Ok(match terminal::shown(&line, Escape::Json, &io::stdout()) {
        Cow::Borrowed(_) => line,
        Cow::Owned(shown) => shown,
    })
}

/// JSON text on one line. Line breaks in strings are escaped, so all others are whitespace between
/// tokens and become spaces.
pub(super) fn one_line(json: &str) -> Cow<'_, str> {
    match json.contains(['\n', '\r']) {
        true => json.replace(['\n', '\r'], " ").into(),
        false => json.into(),
    }
}

/// A time in RFC 3339, or an empty string.
pub(super) fn time(time: Option<&prost_types::Timestamp>) -> String {
    time.and_then(|time| Timestamp::new("time", time.seconds, time.nanos).ok())
        .map(|time| time.to_string())
        .unwrap_or_default()
}
