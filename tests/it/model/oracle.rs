//! The expected result of all steps: an event is stored once under its key, everything received is
//! counted, and lanes are read in commit order.

use std::{collections::BTreeMap, sync::LazyLock};

use event_aggregator::{
    cursor::Cursor,
    event::{
        Difference, Event, EventKey, Name, NewEvent, Outcome, Payload, Position, Timestamp, Verdict,
    },
    store::{Counters, Filter, Place, lane_of},
    testing::ingest::Settled,
};

use super::faulty::POISON;

/// Payload texts, each with its value: texts of equal value do not conflict.
pub static PAYLOADS: LazyLock<[(String, u8); 10]> = LazyLock::new(|| {
    let large = |keys: &mut dyn Iterator<Item = u32>| {
        let members: Vec<String> = keys.map(|key| format!(r#""{key}":[{key}]"#)).collect();
        format!("{{{}}}", members.join(","))
    };
    let small = |text: &str| text.to_owned();
    [
        (small("{}"), 0),
        (small(" { } "), 0),
        (small(r#"{"n":1}"#), 1),
        (small(r#"{ "n" : 1.0 }"#), 1),
        (small(r#"{"n":2,"n":10e-1}"#), 1),
        (small(r#"{"n":9007199254740993}"#), 2),
        (small(r#"{"n":9007199254740992}"#), 3),
        (small(POISON), 4),
        (large(&mut (0..5_000)), 5),
        (large(&mut (0..5_000).rev()), 5),
    ]
});

/// An event to send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sent {
    pub topic: u8,
    pub id: u8,
    pub source: u8,
    pub timestamp: Option<i64>,
    /// Index in [`PAYLOADS`].
    pub payload: usize,
}

/// A stored event.
#[derive(Debug, Clone, Copy)]
pub struct Kept {
    pub sent: Sent,
    received_at: Timestamp,
    pub position: Position,
}

pub fn topic(number: u8) -> String {
    format!("topic-{number}")
}

pub fn key(topic_number: u8, id: u8) -> EventKey {
    let name = |text: String| Name::new("name", text).expect("valid");
    EventKey { topic: name(topic(topic_number)), event_id: name(id.to_string()) }
}

impl Sent {
    pub fn event(&self) -> NewEvent {
        NewEvent {
            key: key(self.topic, self.id),
            timestamp: self.timestamp.and_then(Timestamp::from_micros),
            source: Name::new("source", format!("source-{}", self.source)).expect("valid"),
            payload: Payload::new("payload", PAYLOADS[self.payload].0.to_owned()).expect("valid"),
        }
    }

    fn difference(&self, other: &Self) -> Difference {
        Difference {
            timestamp: self.timestamp.zip(other.timestamp).is_some_and(|(a, b)| a != b),
            source: self.source != other.source,
            payload: PAYLOADS[self.payload].1 != PAYLOADS[other.payload].1,
        }
    }
}

impl Kept {
    pub fn place(&self) -> Place {
        Place { received_at: self.received_at, position: self.position }
    }

    /// Checks that a returned event is this one.
    pub fn check(&self, event: &Event) {
        let sent = self.sent.event();
        let timestamp = sent.timestamp.unwrap_or(self.received_at);
        assert_eq!(event.key, sent.key);
        assert_eq!((event.timestamp, &event.source), (timestamp, &sent.source));
        assert_eq!(event.payload.as_str(), sent.payload.as_str());
        assert_eq!(Place::from(event), self.place());
    }
}

/// The expected state.
#[derive(Clone)]
pub struct Oracle {
    /// Events of each lane, in order.
    pub lanes: Vec<Vec<Kept>>,
    by_key: BTreeMap<(u8, u8), Kept>,
    counters: BTreeMap<u8, Counters>,
}

impl Oracle {
    pub fn new(lanes: u16) -> Self {
        let lanes = (0..lanes).map(|_| Vec::new()).collect();
        Self { lanes, by_key: BTreeMap::new(), counters: BTreeMap::new() }
    }

    /// Records an event, the next of its lane, and checks its verdict.
    pub fn judge(&mut self, sent: Sent, settled: Settled) {
        if PAYLOADS[sent.payload].0 == POISON {
            assert_eq!(settled, Settled::RefusedByStore, "{sent:?}");
            return;
        }
        let Settled::Judged(outcome) = settled else { panic!("refused by the store: {sent:?}") };
        let Outcome { verdict, first_received_at, .. } = outcome;
        self.counters.entry(sent.topic).or_default().add(verdict);
        if let Some(first) = self.by_key.get(&(sent.topic, sent.id)) {
            let difference = sent.difference(&first.sent);
            let expected = match difference == Difference::default() {
                true => Verdict::Duplicate,
                false => Verdict::Conflict(difference),
            };
            assert_eq!(verdict, expected, "{sent:?} after {first:?}");
            assert_eq!(first_received_at, first.received_at, "when the first one came");
            return;
        }
        assert_eq!(verdict, Verdict::Accepted, "never seen: {sent:?}");
        let number = lane_of(&topic(sent.topic), self.lanes.len() as u16);
        let lane = &mut self.lanes[usize::from(number)];
        let latest = lane.last().map(|kept| kept.received_at);
        assert!(latest <= Some(first_received_at), "time runs backwards");
        let position = Position { lane: number, seq: lane.len() as i64 + 1 };
        let kept = Kept { sent, received_at: first_received_at, position };
        lane.push(kept);
        self.by_key.insert((sent.topic, sent.id), kept);
    }

    /// The expected listing, over all pages.
    pub fn listing(&self, filter: &Filter) -> Vec<Kept> {
        let is_listed = |kept: &&Kept| {
            filter.topic.as_ref().is_none_or(|wanted| *wanted == topic(kept.sent.topic))
        };
        let mut listed: Vec<Kept> =
            self.lanes.iter().flatten().filter(is_listed).copied().collect();
        listed.sort_by_key(Kept::place);
        if !filter.oldest_first {
            listed.reverse();
        }
        listed
    }

    pub fn look_up(&self, topic: u8, id: u8) -> Option<&Kept> {
        self.by_key.get(&(topic, id))
    }

    /// The counters by topic.
    pub fn counters(&self) -> BTreeMap<String, Counters> {
        self.counters.iter().map(|(&number, &counters)| (topic(number), counters)).collect()
    }

    /// Whether all events before a cursor still exist.
    pub fn holds(&self, cursor: &Cursor) -> bool {
        let marks = cursor.marks();
        marks.iter().zip(&self.lanes).all(|(mark, lane)| {
            let last = (mark.seq as usize).checked_sub(1);
            let then = last.map(|last| lane.get(last).map(|kept| kept.received_at));
            then.is_none_or(|then| then.is_some() && then == mark.received_at)
        })
    }

    /// The head of each lane.
    pub fn heads(&self) -> Vec<usize> {
        self.lanes.iter().map(Vec::len).collect()
    }
}
