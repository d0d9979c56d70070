//! How much the service takes on at once, over all connections and by whatever way it is asked: calls,
//! large requests that are being read, and large answers that wait to be taken.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::limits::{
    ANSWER_BYTES, CALLS, PROBES, READING_BYTES, SMALL_ANSWER_BYTES, SMALL_REQUEST_BYTES, WATCHES,
};

pub use self::{
    answer::{Expired, LargeAnswer, portion},
    outbox::{Closed, Outbox, Outgoing, Unsent, outbox},
};

mod answer;
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
    calls: Arc<Semaphore>,
    probes: Arc<Semaphore>,
    watches: Arc<Semaphore>,
    reading: Arc<Semaphore>,
    answers: Arc<Semaphore>,
}

/// The room that something takes, until this is dropped.
#[derive(Debug)]
pub struct Room {
    _permit: Option<OwnedSemaphorePermit>,
}

impl Default for Load {
    fn default() -> Self {
        let semaphore = |permits| Arc::new(Semaphore::new(permits));
        Self {
            calls: semaphore(CALLS),
            probes: semaphore(PROBES),
            watches: semaphore(WATCHES),
            reading: semaphore(READING_BYTES),
            answers: semaphore(ANSWER_BYTES),
        }
    }
}

impl Load {
    /// Room for one more call, if there is any.
    pub fn call(&self, kind: Kind) -> Option<Room> {
        let calls = match kind {
            Kind::Ordinary => &self.calls,
            Kind::Probe => &self.probes,
            Kind::Watch => &self.watches,
        };
        let permit = Arc::clone(calls).try_acquire_owned();
        permit.ok().map(|permit| Room { _permit: Some(permit) })
    }

    /// Room for a request of so many bytes, once there is some. Small ones always have it.
    pub async fn reading(&self, bytes: usize) -> Room {
        if bytes <= SMALL_REQUEST_BYTES {
            return Room { _permit: None };
        }
        let permits = u32::try_from(bytes.min(READING_BYTES)).unwrap_or(u32::MAX);
        // It is never closed.
        Room { _permit: Arc::clone(&self.reading).acquire_many_owned(permits).await.ok() }
    }

    /// Room for an answer of so many bytes until it is taken, if there is any. Small ones always have it.
    pub fn answer(&self, bytes: usize) -> Option<Room> {
        if bytes <= SMALL_ANSWER_BYTES {
            return Some(Room { _permit: None });
        }
        let permits = u32::try_from(bytes.min(ANSWER_BYTES)).unwrap_or(u32::MAX);
        let permit = Arc::clone(&self.answers).try_acquire_many_owned(permits);
        permit.ok().map(|permit| Room { _permit: Some(permit) })
    }

    /// How many ordinary calls are in progress.
    pub fn calls(&self) -> usize {
        CALLS - self.calls.available_permits()
    }

    /// Bytes of large requests that are being read.
    pub fn reading_bytes(&self) -> usize {
        READING_BYTES - self.reading.available_permits()
    }

    /// Bytes of large answers that are not taken yet.
    pub fn answer_bytes(&self) -> usize {
        ANSWER_BYTES - self.answers.available_permits()
    }
}
