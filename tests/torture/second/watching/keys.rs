//! Lookups by key, by BatchGetEvents and GET /events/{topic}/{event_id}.

use event_aggregator::proto::v1 as proto;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Deserialize;
use serde_json::value::RawValue;
use tokio::time::timeout;

use super::{Reader, is_load};
use crate::second::{clients, judge::history::Seen, sending::http_micros};

pub(super) async fn run(mut reader: Reader) {
    while is_load(&reader) {
        reader.pause(30).await;
        let count = reader.rng.usize(1..6);
        let last = reader.recorder.keys.len();
        let keys: Vec<usize> = (0..count).map(|_| reader.rng.usize(..last)).collect();
        match reader.rng.bool() {
            true => drop(batch(&mut reader, &keys).await),
            false => drop(one(&mut reader, keys[0]).await),
        }
    }
}

/// Looks up all keys with both APIs. Returns what failed.
pub async fn look_up_all(reader: &mut Reader) -> Option<()> {
    let all: Vec<usize> = (0..reader.recorder.keys.len()).collect();
    let mut left = all.clone();
    while !left.is_empty() {
        let reached = batch(reader, &left).await?;
        left.retain(|key| !reached.contains(key));
    }
    for key in all {
        one(reader, key).await?;
    }
    Some(())
}

/// Returns the keys in the response.
async fn batch(reader: &mut Reader, keys: &[usize]) -> Option<Vec<usize>> {
    const BY: &str = "BatchGetEvents";
    let address = reader.some_service().address;
    let mut client = clients::connect(address).await?;
    let key = |key: &usize| {
        let key = &reader.recorder.keys[*key];
        proto::EventKey { topic: key.topic.to_string(), event_id: key.event_id.to_string() }
    };
    let request = proto::BatchGetEventsRequest {
        keys: keys.iter().map(key).collect(),
        payload_format: proto::PayloadFormat::Json.into(),
    };
    let begin = reader.recorder.now();
    let answer = timeout(clients::CALL, client.batch_get_events(request)).await.ok()?.ok()?;
    let (answer, at) = (answer.into_inner(), (begin, reader.recorder.now()));
    let found = answer.events.iter().filter_map(|event| reader.note(BY, at, event));
    let mut reached: Vec<usize> = found.collect();
    for proto::EventKey { topic, event_id } in &answer.missing {
        let Some(key) = reader.recorder.number(topic, event_id) else { continue };
        reader.recorder.sight(BY, key, at, None);
        reached.push(key);
    }
    if reached.is_empty() || reached.iter().any(|key| !keys.contains(key)) {
        reader.recorder.fault(format!("{BY} answered {reached:?} when asked for {keys:?}"));
        return None;
    }
    Some(reached)
}

/// An event in an HTTP response.
#[derive(Deserialize)]
struct Given<'a> {
    topic: String,
    event_id: String,
    timestamp: String,
    source: String,
    #[serde(borrow)]
    payload: &'a RawValue,
    received_at: String,
}

async fn one(reader: &mut Reader, key: usize) -> Option<()> {
    const BY: &str = "GET /events/{topic}/{event_id}";
    let asked = &reader.recorder.keys[key];
    let encoded = |text: &str| utf8_percent_encode(text, NON_ALPHANUMERIC).to_string();
    let (topic, event_id) = (encoded(&asked.topic), encoded(&asked.event_id));
    let call = format!("GET /events/{topic}/{event_id}");
    let address = reader.some_service().address;
    let begin = reader.recorder.now();
    let asking = clients::http(address, &call, "application/json", "");
    let answer = timeout(clients::CALL, asking).await.ok()?.ok()??;
    let at = (begin, reader.recorder.now());
    match answer.status {
        404 => reader.recorder.sight(BY, key, at, None),
        200 => {
            let given: Option<Given<'_>> = serde_json::from_str(&answer.body).ok();
            let seen = given.as_ref().and_then(|given| {
                Some(Seen {
                    source: reader.recorder.text(&given.source),
                    timestamp: http_micros(&given.timestamp)?,
                    payload: reader.recorder.text(given.payload.get()),
                    received_at: http_micros(&given.received_at)?,
                })
            });
            let keys = &reader.recorder.keys;
            let is_it = given.is_some_and(|given| {
                *given.topic == *keys[key].topic && *given.event_id == *keys[key].event_id
            });
            match seen.filter(|_| is_it) {
                Some(seen) => reader.recorder.sight(BY, key, at, Some(seen)),
                None => reader.recorder.fault(format!("{BY} gave no event: {}", answer.body)),
            }
        }
        429 | 503 | 504 => return None,
        status => {
            reader.recorder.fault(format!("{BY} answered {status}: {}", answer.body));
            return None;
        }
    }
    Some(())
}
