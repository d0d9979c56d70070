//! Simulated events with a known number of duplicates.

use std::collections::VecDeque;

use tokio::sync::mpsc;
use uuid::Uuid;

use super::source::{Line, Outgoing};
use crate::{
    event::Timestamp,
    proto::{
        timestamp,
        v1::{Event, event::Content},
    },
};

/// Duplicates are drawn from this many of the latest events, so that some repeat an event of the
/// same request and some a much older one.
const REMEMBERED: usize = 10_000;

/// Number of events to simulate.
#[derive(Debug)]
pub(super) struct Simulation {
    new: u64,
    repeated: u64,
    topics: u32,
}

/// Counts expected from the service if nothing is sent twice.
#[derive(Debug, Clone, Copy)]
pub(super) struct Expected {
    pub(super) new: u64,
    pub(super) repeated: u64,
}

impl Simulation {
    pub(super) fn new(total: u64, duplicates: f64, topics: u32) -> Self {
        // The first event cannot be a duplicate.
        let repeated = ((total as f64 * duplicates).round() as u64).min(total.saturating_sub(1));
        Self { new: total - repeated, repeated, topics }
    }

    pub(super) fn total(&self) -> u64 {
        self.new + self.repeated
    }

    pub(super) fn expected(&self) -> Expected {
        Expected { new: self.new, repeated: self.repeated }
    }

    /// Generates the events, until all are sent or the receiver is dropped.
    pub(super) async fn run(self, events: mpsc::Sender<Outgoing>) {
        let Self { mut new, mut repeated, topics } = self;
        let mut remembered: VecDeque<Event> = VecDeque::new();
        let mut number = 0;
        while new + repeated > 0 {
            number += 1;
            let is_new = remembered.is_empty() || fastrand::u64(..new + repeated) < new;
            let event = if is_new {
                new -= 1;
                let event = make(number, topics);
                if remembered.len() == REMEMBERED {
                    remembered.pop_front();
                }
                remembered.push_back(event.clone());
                event
            } else {
                repeated -= 1;
                remembered[fastrand::usize(..remembered.len())].clone()
            };
            let line = Line::simulated(number);
            if events.send(Outgoing { line, event: Ok(event) }).await.is_err() {
                return;
            }
        }
    }
}

fn make(number: u64, topics: u32) -> Event {
    Event {
        topic: format!("simulated-{}", fastrand::u32(..topics) + 1),
        event_id: Uuid::new_v4().to_string(),
        timestamp: Some(timestamp(Timestamp::now())),
        source: "simulator".to_owned(),
        content: Some(Content::PayloadJson(format!(
            r#"{{"number":{number},"amount":{},"currency":"EUR"}}"#,
            fastrand::u32(1..100_000)
        ))),
        ..Event::default()
    }
}
