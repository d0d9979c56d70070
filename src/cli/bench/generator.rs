//! Generates events for a load test, cheaply because it shares the machine with the service.

use std::collections::BTreeMap;

use bytes::Bytes;
use prost::Message;
use prost_types::{Struct, Value, value::Kind};
use uuid::Uuid;

use super::{Bench, Ids, PayloadForm};
use crate::{
    event::Timestamp,
    proto::wire::{Content, Event, EventFields},
};

/// Duplicates are drawn from this many of the client's latest events.
const REMEMBERED: usize = 100_000;

#[derive(Debug)]
pub(super) struct Generator {
    ids: Ids,
    topics: Vec<Bytes>,
    content: Content,
    duplicates: f64,
    random: fastrand::Rng,
    /// Keys of earlier events, if duplicates are requested.
    remembered: Vec<(usize, Uuid)>,
}

impl Generator {
    pub(super) fn new(bench: &Bench, client: u64) -> Self {
        let filler = "x".repeat(bench.payload_bytes as usize - r#"{"data":""}"#.len());
        let content = match bench.payload {
            PayloadForm::Json => Content::PayloadJson(format!(r#"{{"data":"{filler}"}}"#).into()),
            PayloadForm::Struct => {
                let structure = structure(bench.payload_bytes as usize);
                Content::Payload(structure.encode_to_vec().into())
            }
        };
        Self {
            ids: bench.ids,
            topics: (0..bench.topics).map(|number| format!("bench-{number}").into()).collect(),
            content,
            duplicates: bench.duplicates,
            random: match bench.seed {
                Some(seed) => fastrand::Rng::with_seed(seed.wrapping_mul(1_000_003) + client),
                None => fastrand::Rng::new(),
            },
            remembered: Vec::new(),
        }
    }

    pub(super) fn events(&mut self, count: usize) -> Vec<Event> {
        (0..count).map(|_| self.event()).collect()
    }

    fn event(&mut self) -> Event {
        let repeat = self.duplicates > 0.0 && self.random.f64() < self.duplicates;
        let (topic, id) = match repeat && !self.remembered.is_empty() {
            true => self.remembered[self.random.usize(..self.remembered.len())],
            false => self.fresh(),
        };
        Event::from(EventFields {
            topic: self.topics[topic].clone(),
            event_id: Bytes::copy_from_slice(
                id.simple().encode_lower(&mut Uuid::encode_buffer()).as_bytes(),
            ),
            timestamp: None,
            source: Bytes::from_static(b"bench"),
            content: Some(self.content.clone()),
            ..EventFields::default()
        })
    }

    fn fresh(&mut self) -> (usize, Uuid) {
        let id = match self.ids {
            Ids::Uuid4 => {
                uuid::Builder::from_random_bytes(self.random.u128(..).to_ne_bytes()).into_uuid()
            }
            Ids::Uuid7 => Timestamp::now().new_uuid(),
        };
        let key = (self.random.usize(..self.topics.len()), id);
        if self.duplicates > 0.0 {
            match self.remembered.len() < REMEMBERED {
                true => self.remembered.push(key),
                false => {
                    let place = self.random.usize(..REMEMBERED);
                    self.remembered[place] = key;
                }
            }
        }
        key
    }
}

/// A `Struct` of small text and number fields with about this many bytes as JSON.
fn structure(bytes: usize) -> Struct {
    const FIELD: usize = r#""field_00":"value 00","#.len();
    let fields: BTreeMap<String, Value> = (0..bytes.div_ceil(FIELD))
        .map(|number| {
            let kind = match number % 3 {
                0 => Kind::NumberValue(number as f64 + 0.5),
                _ => Kind::StringValue(format!("value {number:02}")),
            };
            (format!("field_{number:02}"), Value { kind: Some(kind) })
        })
        .collect();
    Struct { fields }
}
