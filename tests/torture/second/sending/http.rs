//! POST /publish: one event, an array, or CloudEvents.

use std::fmt::Write;

use fastrand::Rng;
use serde_json::{Value, json};
use time::{OffsetDateTime, UtcOffset, format_description::well_known::Rfc3339};
use tokio::time::timeout;

use super::{Key, Outcome, Producer, Sent, Time, Way};
use crate::second::clients;

/// The format of a body.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Form {
    One,
    Array,
    CloudEvents,
}

pub(super) async fn run(mut producer: Producer) {
    while producer.goes_on() {
        producer.pause().await;
        let service = producer.some_service();
        let mut sent = producer.next_request();
        let form = [Form::One, Form::Array, Form::CloudEvents][producer.rng.usize(..3)];
        if form == Form::One {
            sent.truncate(1);
        }
        let body = body(&producer.recorder.keys, form, &sent, &mut producer.rng);
        let content_type = match form {
            Form::CloudEvents => "application/cloudevents-batch+json",
            _ => "application/json",
        };
        let patience = producer.patience();
        let begin = producer.recorder.now();
        let address = producer.services[service].address;
        let sending = clients::http(address, "POST /publish", content_type, &body);
        let lost = |text: &str| vec![Outcome::Lost(text.to_owned()); sent.len()];
        let outcomes = match timeout(patience, sending).await {
            Ok(Ok(None)) => continue,
            Ok(Ok(Some(answer))) => match answer.status {
                200 => judged(&producer, &sent, form, &answer.body),
                429 | 408 => vec![Outcome::NotDone; sent.len()],
                503 | 504 => lost(&answer.body),
                status => {
                    let text = format!("{status}: {}", answer.body);
                    vec![Outcome::Wrong(text); sent.len()]
                }
            },
            Ok(Err(error)) => lost(&error.to_string()),
            Err(_) => lost("given up"),
        };
        producer.note(Way::Http, service, &sent, begin, outcomes);
    }
}

fn body(keys: &[Key], form: Form, sent: &[Sent], rng: &mut Rng) -> String {
    let names = match form {
        Form::CloudEvents => ["type", "id", "source", "time", "data"],
        _ => ["topic", "event_id", "source", "timestamp", "payload"],
    };
    let event = |&(key, content): &Sent| {
        let Key { topic, event_id, contents } = &keys[key];
        let content = &contents[content];
        let mut text = match form {
            Form::CloudEvents => "{\"specversion\":\"1.0\",".to_owned(),
            _ => "{".to_owned(),
        };
        let [topic_name, id_name, source_name, time_name, payload_name] = names;
        let (topic, id, source) = (json!(**topic), json!(**event_id), json!(*content.source));
        let _ =
            write!(text, "\"{topic_name}\":{topic},\"{id_name}\":{id},\"{source_name}\":{source}");
        if let Some(time) = content.timestamp {
            let _ = write!(text, ",\"{time_name}\":\"{}\"", written(time, rng));
        }
        if &*content.payload != "{}" || rng.bool() {
            let _ = write!(text, ",\"{payload_name}\":{}", content.payload);
        }
        text + "}"
    };
    let events: Vec<String> = sent.iter().map(event).collect();
    match form {
        Form::One => events.concat(),
        _ => format!("[{}]", events.join(",")),
    }
}

/// Formats a time with a random UTC offset, if it remains in the range of years.
fn written(time: Time, rng: &mut Rng) -> String {
    let utc = OffsetDateTime::from_unix_timestamp_nanos(i128::from(time) * 1_000).expect("a time");
    let zone = UtcOffset::from_hms(rng.i8(-11..12), [0, 30][rng.usize(..2)], 0);
    let zoned = zone.ok().and_then(|zone| utc.checked_to_offset(zone));
    let zoned = zoned.filter(|zoned| (1..=9999).contains(&zoned.year()));
    zoned.unwrap_or(utc).format(&Rfc3339).expect("a time")
}

/// Parses a time of the service.
pub fn micros(text: &str) -> Option<Time> {
    let time = OffsetDateTime::parse(text, &Rfc3339).ok()?;
    Time::try_from(time.unix_timestamp_nanos() / 1_000).ok()
}

fn judged(producer: &Producer, sent: &[Sent], form: Form, body: &str) -> Vec<Outcome> {
    let wrong = || vec![Outcome::Wrong(body.to_owned()); sent.len()];
    let Ok(answer) = serde_json::from_str::<Value>(body) else { return wrong() };
    let results = match form {
        Form::One => std::slice::from_ref(&answer),
        _ => answer["results"].as_array().map_or(&[][..], Vec::as_slice),
    };
    let outcomes: Vec<Outcome> = results.iter().map(of_result).collect();
    let rejected = outcomes.iter().filter(|it| matches!(it, Outcome::Wrong(_))).count() as i64;
    let number = |name: &str| answer[name].as_i64().unwrap_or(-1);
    let names = ["received", "unique_processed", "duplicate_dropped", "conflicts"];
    let [received, unique, repeated, conflicts] = names.map(number);
    producer.check_sums(sent, &outcomes, [received, unique, repeated, conflicts, rejected]);
    let keys = sent.iter().map(|(key, _)| &producer.recorder.keys[*key]);
    let is_of = |(result, key): (&Value, &Key)| {
        result["topic"] == *key.topic && result["event_id"] == *key.event_id
    };
    match results.len() == sent.len() && results.iter().zip(keys).all(is_of) {
        true => outcomes,
        false => wrong(),
    }
}

fn of_result(result: &Value) -> Outcome {
    let wrong = || Outcome::Wrong(result.to_string());
    let Some(first) = result["first_received_at"].as_str().and_then(micros) else { return wrong() };
    let fields = result["differing_fields"].as_array();
    let text = |field: &Value| field.as_str().unwrap_or_default().to_owned();
    match (result["status"].as_str(), fields) {
        (Some("accepted"), None) => Outcome::Accepted { first },
        (Some("duplicate"), None) => Outcome::Duplicate { first },
        (Some("conflict"), Some(fields)) => {
            Outcome::Conflict { first, fields: fields.iter().map(text).collect() }
        }
        _ => wrong(),
    }
}
