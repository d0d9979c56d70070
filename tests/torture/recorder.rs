//! Where everybody in a round writes down what happened, while it happens.

use std::{
    sync::{
        Mutex, MutexGuard,
        atomic::{AtomicU64, Ordering},
    },
    time::Instant,
};

use crate::{
    history::{Attempt, Counters, Fault, History, Listing, Moment, Reader, Sample},
    secrets,
};
use event_aggregator::proto::v1::GetStatsResponse;

pub struct Recorder {
    began: Instant,
    history: Mutex<History>,
    answered: AtomicU64,
    read: AtomicU64,
}

/// Who waits for something.
#[derive(Debug, Clone, Copy)]
pub enum Waiting {
    Producers,
    Readers,
}

impl Recorder {
    pub fn start() -> Self {
        let (began, history) = (Instant::now(), Mutex::default());
        Self { began, history, answered: AtomicU64::new(0), read: AtomicU64::new(0) }
    }

    /// The time since the round began.
    pub fn now(&self) -> Moment {
        self.began.elapsed()
    }

    /// The instant of a moment.
    pub fn instant(&self, moment: Moment) -> tokio::time::Instant {
        (self.began + moment).into()
    }

    pub fn attempts(&self, attempts: impl IntoIterator<Item = Attempt>) {
        self.history().attempts.extend(attempts);
    }

    /// One of them got what it waited for.
    pub fn goes_on(&self, who: Waiting) {
        self.steps(who).fetch_add(1, Ordering::Relaxed);
    }

    /// A number that changes as long as they get what they wait for.
    pub fn progress(&self, who: Waiting) -> u64 {
        self.steps(who).load(Ordering::Relaxed)
    }

    fn steps(&self, who: Waiting) -> &AtomicU64 {
        match who {
            Waiting::Producers => &self.answered,
            Waiting::Readers => &self.read,
        }
    }

    pub fn reader(&self, reader: Reader) {
        self.history().readers.push(reader);
    }

    pub fn listing(&self, listing: Listing) {
        self.history().listings.push(listing);
    }

    pub fn sample(&self, sample: Sample) {
        self.history().samples.push(sample);
    }

    pub fn fault(&self, fault: Fault) {
        self.history().faults.push(fault);
    }

    /// What nobody may ever see.
    pub fn dirt(&self, what: String) {
        self.history().settled.dirt.push(what);
    }

    /// What did not come back to life.
    pub fn stuck(&self, what: String) {
        self.history().settled.stuck.push(what);
    }

    /// Looks at an error that the service answered: some must not be.
    pub fn look_at(&self, doing: &str, status: &tonic::Status) {
        if is_answer(status) && is_forbidden(status.code()) {
            self.dirt(format!("{doing} was answered {:?}: {}", status.code(), status.message()));
        }
        if secrets::are_in(status.message()) {
            self.dirt(format!("{doing} was answered a secret: {}", status.message()));
        }
    }

    /// The history so far, to add to it or to take it.
    pub fn history(&self) -> MutexGuard<'_, History> {
        self.history.lock().expect("nobody panics while writing")
    }
}

/// Whether the service said it itself. What the transport says has a cause, or is what is said when
/// a stream breaks off without a last word.
fn is_answer(status: &tonic::Status) -> bool {
    let breaks_off = status.message().contains("missing grpc-status trailer");
    std::error::Error::source(status).is_none() && !breaks_off
}

/// Whether an answer shows a fault of the service, whatever happens around it: every request is one
/// that it must take, of whoever sends it.
fn is_forbidden(code: tonic::Code) -> bool {
    use tonic::Code::*;
    matches!(
        code,
        Internal
            | Unknown
            | DataLoss
            | FailedPrecondition
            | OutOfRange
            | NotFound
            | Unimplemented
            | Unauthenticated
            | PermissionDenied
    )
}

/// The counters of an answer.
pub fn counters(stats: &GetStatsResponse) -> Counters {
    Counters {
        received: stats.received,
        unique_processed: stats.unique_processed,
        duplicate_dropped: stats.duplicate_dropped,
        conflicts: stats.conflicts,
    }
}

/// The counters of an answer, topic by topic.
pub fn topic_counters(
    stats: GetStatsResponse,
) -> std::collections::BTreeMap<std::sync::Arc<str>, Counters> {
    let topics = stats.topics.into_iter().map(|topic| {
        let counters = Counters {
            received: topic.received,
            unique_processed: topic.unique_processed,
            duplicate_dropped: topic.duplicate_dropped,
            conflicts: topic.conflicts,
        };
        (topic.topic.into(), counters)
    });
    topics.collect()
}
