//! `POST /publish`: one event, an array of events, or JSON lines, in our own format or as
//! CloudEvents.

use axum::{
    Extension, Json,
    body::Body,
    extract::State,
    http::{HeaderMap, header::CONTENT_TYPE},
};
use serde::Serialize;
use serde_json::value::RawValue;

use super::{body, cloudevent, event, items::Items};
use crate::{
    access::Caller,
    api::{Api, Error, EventResult, OnInvalid, Published, Reason},
    event::{EventKey, NewEvent, Verdict, Violation},
    limits::MAX_REQUEST_EVENTS,
    store::Counters,
};

pub(super) async fn publish(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<PublishResponse>, Error> {
    let form = form(&headers)?;
    let body = body::read(body).await?;
    let text = std::str::from_utf8(&body).map_err(invalid_json)?;
    let (values, is_one) = values(text)?;
    form.check_shape(text, values.len())?;
    if values.len() > MAX_REQUEST_EVENTS {
        return Err(Error::body_too_large());
    }
    let mut sent = Vec::with_capacity(values.len());
    let events = values.iter().map(|value| {
        let (event, not_kept) = form.decode(value).map_err(Error::invalid)?;
        sent.push(Sent { key: event.key.clone(), not_kept });
        Ok(event)
    });
    let events = events.collect();
    let on_invalid = OnInvalid::RejectRequest(match is_one {
        true => |_| String::new(),
        false => |index| format!("[{index}]."),
    });
    let published = api.publish(&caller, events, 0, on_invalid).await?;
    PublishResponse::new(sent, published, is_one).map(Json)
}

/// An event that was sent.
struct Sent {
    key: EventKey,
    /// Names of attributes that are not stored.
    not_kept: Vec<String>,
}

/// The format of events.
#[derive(Debug, Clone, Copy)]
enum Form {
    Own,
    CloudEvent,
    CloudEvents,
}

impl Form {
    /// Checks that the body has the shape that the media type requires. Our own format allows both
    /// one event and several; CloudEvents have a media type for each.
    fn check_shape(self, text: &str, values: usize) -> Result<(), Error> {
        let is_array = text.trim_start().starts_with('[');
        let fault = match self {
            Self::CloudEvent if is_array || values != 1 => {
                format!("must be one JSON object; use {} for an array", cloudevent::BATCH)
            }
            Self::CloudEvents if !is_array => {
                format!("must be a JSON array; use {} for one event", cloudevent::ONE)
            }
            _ => return Ok(()),
        };
        Err(Error::invalid(vec![Violation::new("body", fault)]))
    }

    /// Decodes an event. Also returns the names of attributes that are not stored.
    fn decode(self, text: &RawValue) -> Result<(NewEvent, Vec<String>), Vec<Violation>> {
        match self {
            Self::Own => event::read(text).map(|event| (event, Vec::new())),
            Self::CloudEvent | Self::CloudEvents => cloudevent::read(text),
        }
    }
}

/// The format for a content type. Only JSON types are accepted: pages of other origins can send
/// them only after a CORS preflight, which fails.
fn form(headers: &HeaderMap) -> Result<Form, Error> {
    let content_type = headers.get(CONTENT_TYPE).map(|value| value.to_str().unwrap_or_default());
    let media_type = content_type.and_then(|value| value.split(';').next());
    let media_type = media_type.map(|value| value.trim().to_ascii_lowercase());
    match media_type.as_deref() {
        Some(cloudevent::ONE) => Ok(Form::CloudEvent),
        Some(cloudevent::BATCH) => Ok(Form::CloudEvents),
        _ if headers.contains_key(cloudevent::BINARY_MODE) => {
            let fault = format!(
                "is a header of the binary mode, which is not supported; send the event as {}",
                cloudevent::ONE
            );
            Err(Error::invalid(vec![Violation::new(cloudevent::BINARY_MODE, fault)]))
        }
        Some("application/json" | "application/x-ndjson" | "application/jsonl") => Ok(Form::Own),
        _ => Err(Error::new(
            Reason::UnsupportedMediaType,
            "send JSON with -H 'content-type: application/json', JSON lines with \
             application/x-ndjson, or CloudEvents with application/cloudevents+json",
        )),
    }
}

fn invalid_json(error: impl std::fmt::Display) -> Error {
    Error::new(Reason::InvalidJson, format!("the body is not valid JSON: {error}"))
}

/// The JSON values of a body, and whether it is a single event. At most [`MAX_REQUEST_EVENTS`] plus
/// one are returned.
fn values(text: &str) -> Result<(Vec<&RawValue>, bool), Error> {
    let mut values = Vec::new();
    for value in serde_json::Deserializer::from_str(text).into_iter::<&RawValue>() {
        let value = value.map_err(invalid_json)?;
        if values.len() <= MAX_REQUEST_EVENTS {
            values.push(value);
        }
    }
    match &*values {
        [] => Err(invalid_json("it is empty")),
        [one] if one.get().starts_with('[') => {
            let items: Items<'_> = serde_json::from_str(one.get()).map_err(invalid_json)?;
            Ok((items.0, false))
        }
        [_] => Ok((values, true)),
        _ => Ok((values, false)),
    }
}

/// The response to a publish.
#[derive(Debug, Serialize)]
pub(super) struct PublishResponse {
    #[serde(flatten)]
    results: Results,
    received: i64,
    unique_processed: i64,
    duplicate_dropped: i64,
    conflicts: i64,
}

/// The result of a single event, or those of many.
#[derive(Debug, Serialize)]
#[serde(untagged)]
enum Results {
    One(EventResponse),
    Many { status: &'static str, results: Vec<EventResponse> },
}

/// The result of one event.
#[derive(Debug, Serialize)]
struct EventResponse {
    topic: String,
    event_id: String,
    status: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    first_received_at: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    detail: Option<&'static str>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    differing_fields: Vec<&'static str>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    not_kept: Vec<String>,
}

impl PublishResponse {
    fn new(sent: Vec<Sent>, published: Published, is_one: bool) -> Result<Self, Error> {
        let Published { results, counters, .. } = published;
        let results = match (is_one, &*results) {
            (true, [EventResult::Rejected(error)]) => return Err(Error::clone(error)),
            _ => sent.into_iter().zip(&results).map(|(sent, result)| event_response(sent, result)),
        };
        let mut results: Vec<EventResponse> = results.collect();
        let results = match is_one.then(|| results.pop()).flatten() {
            Some(one) => Results::One(one),
            None => Results::Many { status: "ok", results },
        };
        let Counters { received, unique_processed, duplicate_dropped, conflicts } = counters;
        Ok(Self { results, received, unique_processed, duplicate_dropped, conflicts })
    }
}

fn event_response(Sent { key, not_kept }: Sent, result: &EventResult) -> EventResponse {
    let mut response = EventResponse {
        topic: key.topic.into_string(),
        event_id: key.event_id.into_string(),
        status: "rejected",
        first_received_at: None,
        detail: None,
        differing_fields: Vec::new(),
        not_kept,
    };
    let EventResult::Stored(outcome) = result else { return response };
    response.first_received_at = Some(outcome.first_received_at.to_string());
    match outcome.verdict {
        Verdict::Accepted => response.status = "accepted",
        Verdict::Duplicate => {
            (response.status, response.detail) = ("duplicate", Some("duplicate event"));
        }
        Verdict::Conflict(difference) => {
            let detail = "another event with this topic and event_id is stored; it was kept";
            (response.status, response.detail) = ("conflict", Some(detail));
            response.differing_fields = difference.fields().collect();
        }
    }
    response
}
