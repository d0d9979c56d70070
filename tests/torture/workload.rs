//! The workload of a round, which the seed determines completely.

use std::{sync::Arc, time::Duration};

use event_aggregator::proto::v1::{Event, event};
use fastrand::Rng;
use xxhash_rust::xxh3::Xxh3;

use crate::{
    history::{Content, Key},
    secrets,
};

/// Duration of publishing: one second of warm-up and four seconds with faults.
pub const LOAD: Duration = Duration::from_secs(5);

/// Number of producers: two with gRPC calls, one with HTTP, three with streams.
pub const PRODUCERS: usize = 6;
/// The producer that uses HTTP. Its requests are accepted or rejected as a whole.
pub const HTTP_PRODUCER: usize = 2;

/// Topic names that cover every lane of a database.
const TOPICS: usize = 8;

/// An event to send until its outcome is known.
#[derive(Debug, Clone)]
pub struct Item {
    pub key: Key,
    pub content: Content,
    pub source: Arc<str>,
    pub payload: Arc<str>,
    /// Whether it is valid.
    pub valid: bool,
    due: Duration,
}

/// Events of one request.
#[derive(Debug, Clone)]
pub struct Request {
    /// When it is due, since the start of the round.
    pub due: Duration,
    pub items: Vec<Item>,
    /// Timeout of the first attempt, if the producer cancels it.
    pub cancel: Option<Duration>,
    /// Whether an invalid event does not affect the others, in a unary call.
    pub allow_partial: bool,
}

impl Item {
    /// A valid event that is due immediately.
    pub fn new(topic: &str, event_id: &str, source: &str, payload: String) -> Self {
        let key = Key { topic: topic.into(), event_id: event_id.into() };
        Self::due_at(key, source, payload, Duration::ZERO)
    }

    fn due_at(key: Key, source: &str, payload: String, due: Duration) -> Self {
        let content = content(source, &payload);
        Self { key, content, source: source.into(), payload: payload.into(), valid: true, due }
    }

    pub fn event(&self) -> Event {
        Event {
            topic: self.key.topic.to_string(),
            event_id: self.key.event_id.to_string(),
            source: self.source.to_string(),
            content: Some(event::Content::PayloadJson(self.payload.to_string())),
            ..Event::default()
        }
    }
}

/// The workload of all producers.
pub struct Plan {
    /// The requests of each producer, ordered by time.
    pub requests: Vec<Vec<Request>>,
    /// Initial timeout: minimum and maximum.
    pub patience: (Duration, Duration),
}

/// Identifies contents by their bytes.
pub fn content(source: &str, payload: &str) -> Content {
    let mut hasher = Xxh3::new();
    hasher.update(source.as_bytes());
    hasher.update(&[0]);
    hasher.update(payload.as_bytes());
    hasher.digest()
}

/// Initial timeouts of impatient and of patient producers.
const PATIENCE: (Duration, Duration) = (Duration::from_millis(1_500), Duration::from_secs(4));
const CALM_PATIENCE: (Duration, Duration) = (Duration::from_secs(15), Duration::from_secs(30));

/// Generates the workload of a round. In every other round the producers are patient: with fewer
/// unknown outcomes, the bounds of the counters are tighter.
pub fn plan(rng: &mut Rng) -> Plan {
    let is_calm = rng.bool();
    let topics: Vec<Arc<str>> = (0..TOPICS).map(topic_name).map(Into::into).collect();
    let mut items = vec![Vec::new(); PRODUCERS];
    for number in 0..rng.usize(3_000..=5_000) {
        let key = Key {
            topic: Arc::clone(&topics[popular(rng)]),
            event_id: format!("event-{number}").into(),
        };
        let due = LOAD.mul_f64(rng.f64());
        let item = Item::due_at(key, &format!("source-{}", rng.u8(..3)), payload(rng, number), due);
        add_copies(rng, &item, &mut items);
    }
    let requests = items.into_iter().enumerate().map(|(producer, mut items)| {
        items.sort_by_key(|item| item.due);
        // A cancelled stream also cancels all its pending requests.
        let is_stream = producer > HTTP_PRODUCER;
        let cancelled = match is_stream {
            _ if is_calm => 0.0,
            true => 0.005,
            false => 0.02,
        };
        let mut requests = requests(rng, items, cancelled);
        // A stream always validates events individually.
        requests.iter_mut().for_each(|request| request.allow_partial |= is_stream);
        requests
    });
    let requests = requests.collect();
    Plan { requests, patience: if is_calm { CALM_PATIENCE } else { PATIENCE } }
}

fn topic_name(number: usize) -> String {
    format!("orders-{number}")
}

/// A random topic.
pub fn topic(rng: &mut Rng) -> String {
    topic_name(rng.usize(..TOPICS))
}

/// Most events are of few topics: the first has the most, the second half as many, and so on.
fn popular(rng: &mut Rng) -> usize {
    let weight = |topic: usize| 1.0 / (topic + 1) as f64;
    let mut left = rng.f64() * (0..TOPICS).map(weight).sum::<f64>();
    (0..TOPICS)
        .find(|&topic| {
            left -= weight(topic);
            left < 0.0
        })
        .unwrap_or(0)
}

/// Assigns an event to one or several producers.
fn add_copies(rng: &mut Rng, item: &Item, items: &mut [Vec<Item>]) {
    let first = rng.usize(..PRODUCERS);
    let copies = if rng.f64() < 0.3 { rng.usize(2..=4) } else { 1 };
    for copy in 0..copies {
        let mut item = item.clone();
        // Producers start at different instances, so a neighbor sends to another one.
        let producer = (first + copy) % PRODUCERS;
        if copy > 0 && rng.bool() {
            item.due = (item.due + Duration::from_secs(2).mul_f64(rng.f64())).min(LOAD);
        }
        if rng.f64() < 0.02 {
            // Due at the same time, and therefore in the same request.
            items[producer].push(item.clone());
        }
        items[producer].push(item);
    }
    if rng.f64() < 0.05 {
        let due = LOAD.mul_f64(rng.f64());
        let other = match rng.bool() {
            true => Item::due_at(item.key.clone(), "somebody-else", item.payload.to_string(), due),
            false => Item::due_at(item.key.clone(), &item.source, other_payload(rng), due),
        };
        // It may be in the same request as the first one.
        match rng.u8(..4) {
            0 => items[first].push(Item { due: item.due, ..other }),
            _ => items[rng.usize(..PRODUCERS)].push(other),
        }
    }
    if rng.f64() < 0.01 {
        let producer = [0, 1, 3, 4, 5][rng.usize(..5)];
        items[producer].push(invalid(rng, item));
    }
}

/// An invalid event, derived from a valid one, with its own key.
fn invalid(rng: &mut Rng, like: &Item) -> Item {
    let event_id = match rng.u8(..3) {
        0 => format!("bad-{}\n", like.key.event_id),
        1 => format!("bad-{}-{}", like.key.event_id, "x".repeat(300)),
        _ => format!("bad-{}", like.key.event_id),
    };
    let payload = ["[1]", "{", "{\"n\":1e999}", "{\"n\":\"\\u0000\"}"][rng.usize(..4)];
    let key = Key { topic: Arc::clone(&like.key.topic), event_id: event_id.into() };
    Item { valid: false, ..Item::due_at(key, &like.source, payload.to_owned(), like.due) }
}

/// The payload of a conflicting event: of any size, or the smallest one, which may differ from the
/// largest one.
fn other_payload(rng: &mut Rng) -> String {
    match rng.u8(..3) {
        0 => "{}".to_owned(),
        _ => payload(rng, usize::MAX),
    }
}

/// A payload that is expensive to compare with a careless algorithm: with the maximum nesting,
/// wide, or with one key many times. Up to a sixth of a MiB, because there are some in every round.
fn hostile(rng: &mut Rng, number: usize) -> String {
    let canary = secrets::PAYLOAD;
    let size = rng.usize(1_000..20_000);
    let many = match rng.u8(..3) {
        0 => {
            format!("\"deep\":{}{}{}", "[".repeat(23), vec!["\"\""; size].join(","), "]".repeat(23))
        }
        1 => {
            let mut keys: Vec<usize> = (0..size / 2).collect();
            rng.shuffle(&mut keys);
            keys.iter().map(|key| format!("\"k{key}\":0")).collect::<Vec<_>>().join(",")
        }
        _ => vec!["\"again\":[{}]"; size / 2].join(","),
    };
    format!("{{{many},\"n\":{number},\"canary\":\"{canary}\"}}")
}

/// A unique payload. Its whitespace, numbers and escapes are preserved only if the payload is
/// stored verbatim.
fn payload(rng: &mut Rng, number: usize) -> String {
    if rng.u16(..500) == 0 {
        return hostile(rng, number);
    }
    let size = match rng.u8(..100) {
        0..80 => rng.usize(..300),
        80..96 => rng.usize(300..4_000),
        96..99 => rng.usize(4_000..16_000),
        _ => rng.usize(16_000..64_000),
    };
    let word: String = (0..32).map(|_| rng.alphanumeric()).collect();
    let text = word.repeat(size / word.len() + 1);
    let canary = secrets::PAYLOAD;
    match rng.u8(..4) {
        0 => format!("{{\"n\":{number},\"canary\":\"{canary}\",\"text\":\"{text}\"}}"),
        1 => format!("{{ \"text\" : \"{text}\", \"é\": \"\\u00e9\", \"c\": \"{canary}\" }}"),
        2 => format!("{{\"z\":1.50e1,\"a\":[{number},null],\"{canary}\":true,\"t\":\"{text}\"}}"),
        _ => format!("{{\"n\":9007199254740993,\"c\":\"{canary}\",\"t\":\"{text}-{number}\"}}"),
    }
}

/// Divides events into requests, some of which are cancelled.
fn requests(rng: &mut Rng, items: Vec<Item>, cancelled: f64) -> Vec<Request> {
    let mut requests = Vec::new();
    let mut rest = items.into_iter().peekable();
    while rest.peek().is_some() {
        let size = if rng.u8(..10) == 0 { rng.usize(16..64) } else { rng.usize(1..16) };
        let items: Vec<Item> = rest.by_ref().take(size).collect();
        let patience = Duration::from_millis(rng.u64(..20));
        requests.push(Request {
            due: items.last().map_or(Duration::ZERO, |item| item.due),
            cancel: (rng.f64() < cancelled).then_some(patience),
            allow_partial: rng.bool(),
            items,
        });
    }
    requests
}
