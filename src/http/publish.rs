//! `POST /publish`: one event, an array of them, or lines; in our own form or as CloudEvents.

use axum::{
    Json,
    body::Bytes,
    extract::{State, rejection::BytesRejection},
    http::{HeaderMap, StatusCode, header::CONTENT_TYPE},
    response::IntoResponse,
};
use serde::Serialize;
use serde_json::value::RawValue;

use super::{
    access::{Authentication, Caller},
    cloudevent,
    error::Error,
    event,
    items::Items,
};
use crate::{
    access::Verb,
    event::{EventKey, NewEvent, Outcome, Verdict, Violation},
    ingest::Admission,
    limits::MAX_REQUEST_EVENTS,
    service::Service,
    store::Counters,
};

pub(super) async fn publish(
    Caller(caller): Caller,
    authentication: Authentication,
    State(service): State<Service>,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Result<Json<Answer>, Error> {
    let form = form(&headers)?;
    let body = body.map_err(|rejection| match rejection.into_response().status() {
        StatusCode::PAYLOAD_TOO_LARGE => Error::too_large(),
        _ => Error::not_json("it ends too early"),
    })?;
    let text = std::str::from_utf8(&body).map_err(Error::not_json)?;
    let (values, is_one) = values(text)?;
    form.check_shape(text, values.len())?;
    if values.len() > MAX_REQUEST_EVENTS {
        return Err(Error::too_large());
    }
    let taken = check(form, &values, is_one).map_err(|(events, violations)| {
        service.ingest.count_rejected(events);
        Error::invalid(violations)
    })?;
    let topics = taken.iter().map(|(event, _)| &*event.key.topic);
    caller.demand(Verb::Publish, topics).map_err(|error| {
        service.ingest.count_rejected(taken.len());
        Error::access(error)
    })?;
    service.spend(&caller, taken.len()).map_err(Error::access)?;
    let (events, not_kept): (Vec<_>, Vec<_>) = taken.into_iter().unzip();
    let keys: Vec<EventKey> = events.iter().map(|event| event.key.clone()).collect();
    let sent = keys.into_iter().zip(not_kept);
    let account = caller.account(authentication.key().clone());
    let pending = service.ingest.submit(events, 0, Admission::Refuse, account).await;
    let pending = pending.map_err(Error::ingest)?;
    let outcomes = pending.outcomes().await.map_err(Error::ingest)?;
    Answer::new(sent, &outcomes, is_one).map(Json)
}

/// An event, and the names of what came with it and is not kept.
type Taken = (NewEvent, Vec<String>);

/// In which form events come in.
#[derive(Debug, Clone, Copy)]
enum Form {
    Own,
    CloudEvent,
    CloudEvents,
}

impl Form {
    /// Our own form may be one event or many; a CloudEvent's media type says which.
    fn check_shape(self, text: &str, values: usize) -> Result<(), Error> {
        let is_array = text.trim_start().starts_with('[');
        let fault = match self {
            Self::CloudEvent if is_array || values != 1 => {
                format!("must be one JSON object; {} takes an array", cloudevent::BATCH)
            }
            Self::CloudEvents if !is_array => {
                format!("must be a JSON array; {} takes one event", cloudevent::ONE)
            }
            _ => return Ok(()),
        };
        Err(Error::invalid(vec![Violation::new("body", fault)]))
    }

    fn read(self, text: &RawValue) -> Result<Taken, Vec<Violation>> {
        match self {
            Self::Own => event::read(text).map(|event| (event, Vec::new())),
            Self::CloudEvent | Self::CloudEvents => cloudevent::read(text),
        }
    }
}

/// A browser sends other types from any page without asking; nothing but JSON is taken.
fn form(headers: &HeaderMap) -> Result<Form, Error> {
    let content_type = headers.get(CONTENT_TYPE).map(|value| value.to_str().unwrap_or_default());
    let media_type = content_type.and_then(|value| value.split(';').next());
    let media_type = media_type.map(|value| value.trim().to_ascii_lowercase());
    match media_type.as_deref() {
        Some(cloudevent::ONE) => Ok(Form::CloudEvent),
        Some(cloudevent::BATCH) => Ok(Form::CloudEvents),
        _ if headers.contains_key(cloudevent::BINARY_MODE) => {
            let fault = format!("is a header; send the whole event as {}", cloudevent::ONE);
            Err(Error::invalid(vec![Violation::new(cloudevent::BINARY_MODE, fault)]))
        }
        Some("application/json" | "application/x-ndjson" | "application/jsonl") => Ok(Form::Own),
        _ => Err(Error::not_a_json_type()),
    }
}

/// The values in a body, and whether it is only one. Of too many there is one too many.
fn values(text: &str) -> Result<(Vec<&RawValue>, bool), Error> {
    let mut values = Vec::new();
    for value in serde_json::Deserializer::from_str(text).into_iter::<&RawValue>() {
        let value = value.map_err(Error::not_json)?;
        if values.len() <= MAX_REQUEST_EVENTS {
            values.push(value);
        }
    }
    match &*values {
        [] => Err(Error::not_json("it is empty")),
        [one] if one.get().starts_with('[') => {
            let items: Items<'_> = serde_json::from_str(one.get()).map_err(Error::not_json)?;
            Ok((items.0, false))
        }
        [_] => Ok((values, true)),
        _ => Ok((values, false)),
    }
}

/// The events, or how many are invalid and all that is wrong with them.
fn check(
    form: Form,
    values: &[&RawValue],
    is_one: bool,
) -> Result<Vec<Taken>, (usize, Vec<Violation>)> {
    let mut events = Vec::with_capacity(values.len());
    let mut violations = Vec::new();
    let mut invalid = 0;
    for (index, value) in values.iter().enumerate() {
        match form.read(value) {
            Ok(event) => events.push(event),
            Err(faults) => {
                invalid += 1;
                violations.extend(faults.into_iter().map(|fault| match is_one {
                    true => fault,
                    false => {
                        Violation::new(format!("[{index}].{}", fault.field), fault.description)
                    }
                }));
            }
        }
    }
    if invalid > 0 { Err((invalid, violations)) } else { Ok(events) }
}

/// What a publish is answered.
#[derive(Debug, Serialize)]
pub(super) struct Answer {
    #[serde(flatten)]
    what: What,
    received: i64,
    unique_processed: i64,
    duplicate_dropped: i64,
    conflicts: i64,
}

/// The verdict on one event, or those on many.
#[derive(Debug, Serialize)]
#[serde(untagged)]
enum What {
    One(Judged),
    Many { status: &'static str, results: Vec<Judged> },
}

/// What became of one event.
#[derive(Debug, Serialize)]
struct Judged {
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

impl Answer {
    fn new(
        sent: impl Iterator<Item = (EventKey, Vec<String>)>,
        outcomes: &[Option<Outcome>],
        is_one: bool,
    ) -> Result<Self, Error> {
        let mut counters = Counters::default();
        outcomes.iter().flatten().for_each(|outcome| counters.add(outcome.verdict));
        let mut results =
            sent.zip(outcomes).map(|((key, not_kept), &outcome)| judged(key, not_kept, outcome));
        let what = match outcomes {
            [None] if is_one => return Err(Error::internal()),
            _ if is_one => What::One(results.next().ok_or_else(Error::internal)?),
            _ => What::Many { status: "ok", results: results.collect() },
        };
        let Counters { received, unique_processed, duplicate_dropped, conflicts } = counters;
        Ok(Self { what, received, unique_processed, duplicate_dropped, conflicts })
    }
}

fn judged(key: EventKey, not_kept: Vec<String>, outcome: Option<Outcome>) -> Judged {
    let (status, detail, differing_fields) = match outcome.map(|outcome| outcome.verdict) {
        None => ("rejected", None, Vec::new()),
        Some(Verdict::Accepted) => ("accepted", None, Vec::new()),
        Some(Verdict::Duplicate) => ("duplicate", Some("duplicate event"), Vec::new()),
        Some(Verdict::Conflict(difference)) => {
            let detail = "another event has this topic and event_id; it stays";
            ("conflict", Some(detail), difference.fields().collect())
        }
    };
    Judged {
        topic: key.topic.into_string(),
        event_id: key.event_id.into_string(),
        status,
        first_received_at: outcome.map(|outcome| outcome.first_received_at.to_string()),
        detail,
        differing_fields,
        not_kept,
    }
}
