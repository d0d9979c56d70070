//! The workload of a round: keys, and the contents that compete for each key. The seed determines
//! all of it.

use std::sync::Arc;

use fastrand::Rng;

use super::{
    judge::history::{Content, Key, Time},
    shapes::{Form, Shape},
};

/// Number of keys of a round.
const KEYS: usize = 40;

/// Number of keys that are sent concurrently.
const WINDOW: usize = 4;

/// Topics, some with characters that are special in URLs and terminals.
const TOPICS: [&str; 6] = ["orders", "a/b %2F?", "tópic", "\"q\"\\", "日本", "e\u{301}"];

/// Contained in each source, to recognize a statement with new events on its way to PostgreSQL.
pub const MARK: &str = "second-checker";

/// From 1970 to 2100, in microseconds.
const TIMES: std::ops::Range<Time> = 0..4_102_444_800_000_000;

/// The minimum and maximum timestamp of the contract, in microseconds.
const EXTREMES: [Time; 2] = [-62_135_596_800_000_000, 253_402_300_799_999_999];

/// Size of the largest payloads in bytes; the limit of the service is 1 MiB. Without optimizations,
/// comparing larger ones takes too long for a regular test.
const LARGE: usize = if cfg!(debug_assertions) { 60 << 10 } else { (1 << 20) - 200 };

pub fn keys(rng: &mut Rng) -> Vec<Key> {
    (0..KEYS).map(|number| key(number, rng)).collect()
}

fn key(number: usize, rng: &mut Rng) -> Key {
    let topic = TOPICS[rng.usize(..TOPICS.len())].into();
    let event_id = match rng.u8(..4) {
        // The maximum length of a name.
        0 => format!("{number}-{}", "y".repeat(252 - number.to_string().len())),
        1 => format!("{number} é/..\u{2028}?&#"),
        _ => number.to_string(),
    };
    let form = match number % 20 {
        7 => Form::Large(rng.usize(LARGE / 4..LARGE)),
        number => [Form::Plain, Form::Small, Form::Deep, Form::Wide][number % 4],
    };
    Key { topic, event_id: event_id.into(), contents: contents(form, rng) }
}

/// The contents that compete for a key. The first ones are meant to be equal.
fn contents(form: Form, rng: &mut Rng) -> Vec<Content> {
    let shape = Shape::new(form, rng);
    let source: Arc<str> = format!("{MARK} {}", rng.u8(..)).into();
    let other: Arc<str> = format!("{MARK} other").into();
    let time = match rng.u8(..5) {
        0 => None,
        1 => Some(EXTREMES[rng.usize(..2)]),
        _ => Some(rng.i64(TIMES)),
    };
    let payload = |shape: &Shape, rng: &mut Rng| -> Arc<str> { shape.write(rng).into() };
    let base = Content { source, timestamp: time, payload: payload(&shape, rng), is_struct: false };
    let mut contents = vec![base.clone()];
    for _ in 0..2 {
        contents.push(Content { payload: payload(&shape, rng), ..base.clone() });
    }
    if form == Form::Plain {
        contents.push(Content { is_struct: true, ..base.clone() });
    }
    let changed: Arc<str> = payload(&shape.changed(rng), rng);
    contents.push(Content { payload: Arc::clone(&changed), ..base.clone() });
    contents.push(Content { source: Arc::clone(&other), ..base.clone() });
    contents.push(Content { timestamp: Some(rng.i64(TIMES)), ..base.clone() });
    contents.push(Content { timestamp: None, ..base.clone() });
    contents.push(Content { source: other, payload: changed, timestamp: Some(1), ..base });
    // Very small, to be compared with a large stored payload.
    contents.push(Content { payload: "{}".into(), ..base });
    contents
}

/// Chooses the events of one request, as indices of keys and contents. `progress` goes from 0 to 1
/// over the round: keys are introduced, sent through all APIs concurrently, and retired.
pub fn request(keys: &[Key], progress: f64, rng: &mut Rng) -> Vec<(usize, usize)> {
    let first = (progress * (keys.len() + 1 - WINDOW) as f64) as usize;
    let first = first.min(keys.len() - WINDOW);
    let mut bytes = 0;
    let mut events = Vec::new();
    for _ in 0..rng.usize(1..=8) {
        let key = match rng.u8(..8) {
            0 => rng.usize(..first + WINDOW),
            _ => first + rng.usize(..WINDOW),
        };
        let contents = &keys[key].contents;
        let mut content = rng.usize(..contents.len());
        // Few large payloads, and many tiny ones that are compared with them.
        bytes += contents[content].payload.len();
        if bytes > 3 << 20 || (contents[content].payload.len() > 10_000 && rng.u8(..4) > 0) {
            content = contents.len() - 1;
        }
        events.push((key, content));
    }
    events
}
