//! Readers during publishing, and once more at the end.

use std::{sync::Arc, time::Duration};

use event_aggregator::proto::v1 as proto;
use fastrand::Rng;
use tokio::{task::JoinSet, time::sleep};

use super::{
    judge::history::{Moment, Seen},
    recorder::{Phase, Recorder},
    sending::micros,
    service::Service,
};

pub mod counters;
mod keys;
mod pages;
mod subscription;

pub use keys::look_up_all;
pub use pages::walk;

/// The state of a reader.
#[derive(Clone)]
pub struct Reader {
    pub recorder: Arc<Recorder>,
    pub services: Arc<[Service]>,
    pub rng: Rng,
}

impl Reader {
    pub fn some_service(&mut self) -> &Service {
        &self.services[self.rng.usize(..self.services.len())]
    }

    async fn pause(&mut self, millis: u64) {
        sleep(Duration::from_millis(self.rng.u64(..millis))).await;
    }

    /// Records an event that was returned, unless its key is unknown.
    fn note(&self, by: &'static str, at: (Moment, Moment), event: &proto::Event) -> Option<usize> {
        let Some(seen) = self.seen(event) else {
            self.recorder.fault(format!("{by} gave an incomplete event: {event:?}"));
            return None;
        };
        let key = self.recorder.number(&event.topic, &event.event_id)?;
        self.recorder.sight(by, key, at, Some(seen));
        Some(key)
    }

    fn seen(&self, event: &proto::Event) -> Option<Seen> {
        let Some(proto::event::Content::PayloadJson(payload)) = &event.content else { return None };
        Some(Seen {
            source: self.recorder.text(&event.source),
            timestamp: micros(event.timestamp.as_ref()?),
            payload: self.recorder.text(payload),
            received_at: micros(event.received_at.as_ref()?),
        })
    }
}

/// Starts the readers that end with the load.
pub fn start(reader: &Reader, rng: &mut Rng) -> JoinSet<()> {
    let mut watching = JoinSet::new();
    let mut reader = || Reader { rng: rng.fork(), ..reader.clone() };
    watching.spawn(counters::run(reader()));
    watching.spawn(keys::run(reader()));
    watching.spawn(pages::run(reader()));
    watching
}

/// Starts subscribers, which continue until they have caught up after the last restart.
pub fn subscribe(reader: &Reader, rng: &mut Rng) -> JoinSet<()> {
    let mut subscribing = JoinSet::new();
    for _ in 0..2 {
        subscribing.spawn(subscription::run(Reader { rng: rng.fork(), ..reader.clone() }));
    }
    subscribing
}

fn is_load(reader: &Reader) -> bool {
    reader.recorder.is(Phase::Load)
}
