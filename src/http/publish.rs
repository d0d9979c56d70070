//! `POST /publish`: one event, an array of them, or lines.

use axum::{
    Json,
    body::Bytes,
    extract::{State, rejection::BytesRejection},
    http::{HeaderMap, StatusCode, header::CONTENT_TYPE},
    response::IntoResponse,
};
use serde_json::{Value, json, value::RawValue};

use super::{Http, error::Error, event};
use crate::{
    event::{EventKey, NewEvent, Outcome, Verdict, Violation},
    ingest::Admission,
    limits::MAX_REQUEST_EVENTS,
    store::Counters,
};

pub(super) async fn publish(
    State(http): State<Http>,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Result<Json<Value>, Error> {
    check_type(&headers)?;
    let body = body.map_err(|rejection| match rejection.into_response().status() {
        StatusCode::PAYLOAD_TOO_LARGE => Error::too_large(),
        _ => Error::not_json("it ends too early"),
    })?;
    let text = std::str::from_utf8(&body).map_err(Error::not_json)?;
    let (values, is_one) = values(text)?;
    if values.len() > MAX_REQUEST_EVENTS {
        return Err(Error::too_large());
    }
    let events = check(&values, is_one).map_err(|(events, violations)| {
        http.ingest.count_rejected(events);
        Error::invalid(violations)
    })?;
    let keys: Vec<EventKey> = events.iter().map(|event| event.key.clone()).collect();
    let pending = http.ingest.submit(events, Admission::Refuse).await.map_err(Error::ingest)?;
    let outcomes = pending.outcomes().await.map_err(Error::ingest)?;
    answer(&keys, &outcomes, is_one).map(Json)
}

/// A browser sends other types from any page without asking; nothing but JSON is taken.
fn check_type(headers: &HeaderMap) -> Result<(), Error> {
    let content_type = headers.get(CONTENT_TYPE).map(|value| value.to_str().unwrap_or_default());
    let media_type = content_type.and_then(|value| value.split(';').next()).map(str::trim);
    match media_type {
        Some("application/json" | "application/x-ndjson" | "application/jsonl") => Ok(()),
        _ => Err(Error::not_a_json_type()),
    }
}

/// The values in a body, and whether it is only one.
fn values(text: &str) -> Result<(Vec<&RawValue>, bool), Error> {
    let values = serde_json::Deserializer::from_str(text).into_iter::<&RawValue>();
    let values: Vec<&RawValue> = values.collect::<Result<_, _>>().map_err(Error::not_json)?;
    match &*values {
        [] => Err(Error::not_json("it is empty")),
        [one] if one.get().starts_with('[') => {
            Ok((serde_json::from_str(one.get()).map_err(Error::not_json)?, false))
        }
        [_] => Ok((values, true)),
        _ => Ok((values, false)),
    }
}

/// The events, or how many are invalid and all that is wrong with them.
fn check(values: &[&RawValue], is_one: bool) -> Result<Vec<NewEvent>, (usize, Vec<Violation>)> {
    let mut events = Vec::with_capacity(values.len());
    let mut violations = Vec::new();
    let mut invalid = 0;
    for (index, value) in values.iter().enumerate() {
        match event::read(value) {
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

fn answer(keys: &[EventKey], outcomes: &[Option<Outcome>], is_one: bool) -> Result<Value, Error> {
    let mut counters = Counters::default();
    outcomes.iter().flatten().for_each(|outcome| counters.add(outcome.verdict));
    let results: Vec<Value> =
        keys.iter().zip(outcomes).map(|(key, outcome)| result(key, *outcome)).collect();
    let mut answer = match (is_one, &*results) {
        (true, [result]) => match outcomes {
            [None] => return Err(Error::internal()),
            _ => result.clone(),
        },
        _ => json!({ "status": "ok", "results": results }),
    };
    answer["received"] = counters.received.into();
    answer["unique_processed"] = counters.unique_processed.into();
    answer["duplicate_dropped"] = counters.duplicate_dropped.into();
    answer["conflicts"] = counters.conflicts.into();
    Ok(answer)
}

fn result(key: &EventKey, outcome: Option<Outcome>) -> Value {
    let mut result = json!({ "topic": &*key.topic, "event_id": &*key.event_id });
    let Some(Outcome { verdict, first_received_at }) = outcome else {
        result["status"] = "rejected".into();
        return result;
    };
    result["first_received_at"] = first_received_at.to_string().into();
    let (status, detail) = match verdict {
        Verdict::Accepted => ("accepted", None),
        Verdict::Duplicate => ("duplicate", Some("duplicate event")),
        Verdict::Conflict(difference) => {
            result["differing_fields"] = difference.fields().collect();
            ("conflict", Some("another event has this topic and event_id; it stays"))
        }
    };
    result["status"] = status.into();
    if let Some(detail) = detail {
        result["detail"] = detail.into();
    }
    result
}
