//! How much the service takes on at once, over all connections and by whatever way it is asked, and how
//! much of that one caller may use: calls, subscriptions, large requests that are being read, and large
//! answers that wait to be taken.

use crate::limits::{
    ANSWER_BYTES, CALLS, PROBES, READING_BYTES, SMALL_ANSWER_BYTES, SMALL_REQUEST_BYTES,
    SUBSCRIBERS, SUBSCRIPTION_BYTES, WATCHES,
};

pub use self::{
    answer::{Expired, LargeAnswer, portion},
    bound::{Bound, Full, Permit},
    caller::{CallerKey, origin},
    outbox::{Closed, Outbox, Outgoing, Unsent, outbox},
};

mod answer;
mod bound;
mod caller;
mod outbox;

/// What kind of call somebody makes. Each has a bound of its own, so that those who need not say who
/// they are take nothing from those who do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Asks the service for what it is there for.
    Ordinary,
    /// Asks how the service is. Anybody may.
    Probe,
    /// Goes on until the caller ends it, and anybody may make it.
    Watch,
}

/// What is in progress. Clones are handles to the same one.
#[derive(Debug, Clone)]
pub struct Load {
    calls: Bound,
    probes: Bound,
    watches: Bound,
    subscriptions: Bound,
    subscription_memory: Bound,
    reading: Bound,
    answers: Bound,
}

impl Default for Load {
    fn default() -> Self {
        Self {
            calls: Bound::new(CALLS),
            probes: Bound::new(PROBES),
            watches: Bound::new(WATCHES),
            subscriptions: Bound::new(SUBSCRIBERS),
            subscription_memory: Bound::new(SUBSCRIPTION_BYTES),
            reading: Bound::new(READING_BYTES),
            answers: Bound::new(ANSWER_BYTES),
        }
    }
}

impl Load {
    /// A permit for one more call.
    pub fn call(&self, kind: Kind, caller: &CallerKey) -> Result<Permit, Full> {
        let calls = match kind {
            Kind::Ordinary => &self.calls,
            Kind::Probe => &self.probes,
            Kind::Watch => &self.watches,
        };
        calls.try_take(caller, 1)
    }

    /// A permit for one more subscription to the feed.
    pub fn subscription(&self, caller: &CallerKey) -> Result<Permit, Full> {
        self.subscriptions.try_take(caller, 1)
    }

    /// A permit to read a request of so many bytes, once they are free. Small requests need none.
    pub async fn reading(&self, caller: &CallerKey, bytes: usize) -> Option<Permit> {
        if bytes <= SMALL_REQUEST_BYTES {
            return None;
        }
        self.reading.take(caller, bytes).await
    }

    /// A permit for an answer of so many bytes until it is taken. Small answers need none.
    pub fn answer(&self, caller: &CallerKey, bytes: usize) -> Result<Option<Permit>, Full> {
        if bytes <= SMALL_ANSWER_BYTES {
            return Ok(None);
        }
        self.answers.try_take(caller, bytes).map(Some)
    }

    /// Where subscriptions take permits for the events that they keep in memory, in bytes.
    pub fn subscription_memory(&self) -> &Bound {
        &self.subscription_memory
    }

    /// How many ordinary calls are in progress.
    pub fn calls(&self) -> usize {
        self.calls.used()
    }

    /// Bytes of large requests that are being read.
    pub fn reading_bytes(&self) -> usize {
        self.reading.used()
    }

    /// Bytes of large answers that are not taken yet.
    pub fn answer_bytes(&self) -> usize {
        self.answers.used()
    }

    /// Bytes of events that subscriptions keep in memory, beyond what needs no permits.
    pub fn subscription_bytes(&self) -> usize {
        self.subscription_memory.used()
    }
}
