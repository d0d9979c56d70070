//! Producers: each uses one API, and records every event as an attempt.

use std::{sync::Arc, time::Duration};

use event_aggregator::proto::v1 as proto;
use fastrand::Rng;
use tokio::time::sleep;

use super::{
    judge::history::{Attempt, Content, Key, Moment, Outcome, Time, Way},
    planned,
    recorder::{Phase, Recorder},
    service::Service,
};

mod http;
mod stream;
mod unary;

pub use http::micros as http_micros;

/// Number of producers per API.
const OF_EACH: usize = 2;

/// The state of a producer.
pub struct Producer {
    pub recorder: Arc<Recorder>,
    pub services: Arc<[Service]>,
    pub load: Duration,
    pub rng: Rng,
}

/// Index of a key, and of one of its contents.
type Sent = (usize, usize);

/// Starts all producers. They end with the load.
pub fn start(
    recorder: &Arc<Recorder>,
    services: &Arc<[Service]>,
    load: Duration,
    rng: &mut Rng,
) -> tokio::task::JoinSet<()> {
    let mut sending = tokio::task::JoinSet::new();
    for _ in 0..OF_EACH {
        let mut producer = || Producer {
            recorder: Arc::clone(recorder),
            services: Arc::clone(services),
            load,
            rng: rng.fork(),
        };
        sending.spawn(unary::run(producer()));
        sending.spawn(stream::run(producer()));
        sending.spawn(http::run(producer()));
    }
    sending
}

impl Producer {
    fn goes_on(&self) -> bool {
        self.recorder.is(Phase::Load)
    }

    fn next_request(&mut self) -> Vec<Sent> {
        let progress = self.recorder.now() as f64 / self.load.as_micros() as f64;
        planned::request(&self.recorder.keys, progress.min(1.0), &mut self.rng)
    }

    fn some_service(&mut self) -> usize {
        self.rng.usize(..self.services.len())
    }

    async fn pause(&mut self) {
        sleep(Duration::from_millis(self.rng.u64(..12))).await;
    }

    /// The timeout of a call: sometimes too short, like that of an impatient client.
    fn patience(&mut self) -> Duration {
        match self.rng.u8(..25) {
            0 => Duration::from_millis(self.rng.u64(1..30)),
            _ => super::clients::CALL,
        }
    }

    /// Records the outcomes of the events of one request.
    fn note(
        &self,
        way: Way,
        service: usize,
        sent: &[Sent],
        begin: Moment,
        outcomes: impl IntoIterator<Item = Outcome>,
    ) {
        let end = self.recorder.now();
        let attempts = sent.iter().zip(outcomes).map(|(&(key, content), outcome)| Attempt {
            key,
            content,
            way,
            service,
            begin,
            end,
            outcome,
        });
        self.recorder.history().attempts.extend(attempts);
    }

    fn note_all(&self, way: Way, service: usize, sent: &[Sent], begin: Moment, one: &Outcome) {
        self.note(way, service, sent, begin, vec![one.clone(); sent.len()]);
    }

    /// The outcomes of a response, and whether its counters match its results.
    fn judged(
        &self,
        sent: &[Sent],
        results: &[proto::PublishResult],
        sums: [i64; 5],
    ) -> Vec<Outcome> {
        let outcomes: Vec<Outcome> = results.iter().map(of_result).collect();
        self.check_sums(sent, &outcomes, sums);
        outcomes
    }

    /// The counters are received, unique, duplicate, conflicts and rejected.
    fn check_sums(&self, sent: &[Sent], outcomes: &[Outcome], sums: [i64; 5]) {
        if outcomes.len() != sent.len() {
            let (events, results) = (sent.len(), outcomes.len());
            return self.recorder.fault(format!("{results} results for {events} events"));
        }
        let count = |is: fn(&Outcome) -> bool| outcomes.iter().filter(|it| is(it)).count() as i64;
        let unique = count(|it| matches!(it, Outcome::Accepted { .. }));
        let equal = count(|it| matches!(it, Outcome::Duplicate { .. }));
        let conflicts = count(|it| matches!(it, Outcome::Conflict { .. }));
        let rejected = count(|it| matches!(it, Outcome::Wrong(_)));
        let repeated = equal + conflicts;
        let expected = [unique + repeated, unique, repeated, conflicts, rejected];
        if sums != expected {
            let text = format!("a response sums up to {sums:?}, its results to {expected:?}");
            self.recorder.fault(text);
        }
    }
}

fn of_result(result: &proto::PublishResult) -> Outcome {
    let Some(first) = result.first_received_at.as_ref().map(micros) else {
        return Outcome::Wrong(format!("{result:?}"));
    };
    let fields = &result.differing_fields;
    match result.status() {
        proto::PublishStatus::Accepted if fields.is_empty() => Outcome::Accepted { first },
        proto::PublishStatus::Duplicate if fields.is_empty() => Outcome::Duplicate { first },
        proto::PublishStatus::Conflict => Outcome::Conflict { first, fields: fields.clone() },
        _ => Outcome::Wrong(format!("{result:?}")),
    }
}

pub fn micros(time: &prost_types::Timestamp) -> Time {
    time.seconds * 1_000_000 + Time::from(time.nanos / 1_000)
}

/// Encodes an event for gRPC. Timestamps get digits below the microsecond, which are truncated.
fn message(key: &Key, content: &Content, rng: &mut Rng) -> proto::Event {
    let timestamp = content.timestamp.map(|time| prost_types::Timestamp {
        seconds: time.div_euclid(1_000_000),
        nanos: time.rem_euclid(1_000_000) as i32 * 1_000 + rng.i32(0..1_000),
    });
    let payload = match content.is_struct {
        true => proto::event::Content::Payload(structure(&content.payload)),
        false => proto::event::Content::PayloadJson(content.payload.to_string()),
    };
    // An absent payload means an empty object.
    let is_absent = &*content.payload == "{}" && rng.bool();
    proto::Event {
        topic: key.topic.to_string(),
        event_id: key.event_id.to_string(),
        timestamp,
        source: content.source.to_string(),
        content: (!is_absent).then_some(payload),
        ..proto::Event::default()
    }
}

/// The payload as a `Struct`. Only for numbers that it represents exactly.
fn structure(text: &str) -> prost_types::Struct {
    match serde_json::from_str(text).map(value) {
        Ok(prost_types::Value { kind: Some(prost_types::value::Kind::StructValue(it)) }) => it,
        _ => panic!("payloads are objects"),
    }
}

fn value(json: serde_json::Value) -> prost_types::Value {
    use prost_types::value::Kind;
    let kind = match json {
        serde_json::Value::Null => Kind::NullValue(0),
        serde_json::Value::Bool(bool) => Kind::BoolValue(bool),
        serde_json::Value::Number(number) => Kind::NumberValue(number.as_f64().expect("a float")),
        serde_json::Value::String(text) => Kind::StringValue(text),
        serde_json::Value::Array(items) => Kind::ListValue(prost_types::ListValue {
            values: items.into_iter().map(value).collect(),
        }),
        serde_json::Value::Object(members) => Kind::StructValue(prost_types::Struct {
            fields: members.into_iter().map(|(name, json)| (name, value(json))).collect(),
        }),
    };
    prost_types::Value { kind: Some(kind) }
}
