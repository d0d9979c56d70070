//! Records the history of a round while it runs.

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

/// What waits for progress.
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

    /// Time since the start of the round.
    pub fn now(&self) -> Moment {
        self.began.elapsed()
    }

    /// Converts a time of the round to an instant.
    pub fn instant(&self, moment: Moment) -> tokio::time::Instant {
        (self.began + moment).into()
    }

    pub fn attempts(&self, attempts: impl IntoIterator<Item = Attempt>) {
        self.history().attempts.extend(attempts);
    }

    /// Records progress.
    pub fn goes_on(&self, who: Waiting) {
        self.steps(who).fetch_add(1, Ordering::Relaxed);
    }

    /// A number that changes with each progress.
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

    /// Records something that must never occur.
    pub fn dirt(&self, what: String) {
        self.history().settled.dirt.push(what);
    }

    /// Records something that did not recover.
    pub fn stuck(&self, what: String) {
        self.history().settled.stuck.push(what);
    }

    /// Checks an error from the service: some must never occur.
    pub fn look_at(&self, doing: &str, status: &tonic::Status) {
        if is_answer(status) && is_forbidden(status.code()) {
            self.dirt(format!("{doing} was answered {:?}: {}", status.code(), status.message()));
        }
        if secrets::are_in(status.message()) {
            self.dirt(format!("{doing} was answered a secret: {}", status.message()));
        }
    }

    /// The history so far, for additions.
    pub fn history(&self) -> MutexGuard<'_, History> {
        self.history.lock().expect("nobody panics while writing")
    }
}

/// Whether a status is from the service. A status from the transport has a cause, or the message
/// for a stream without trailers.
fn is_answer(status: &tonic::Status) -> bool {
    let breaks_off = status.message().contains("missing grpc-status trailer");
    std::error::Error::source(status).is_none() && !breaks_off
}

/// Whether a status indicates a bug in the service, regardless of faults: all requests are valid
/// and authorized.
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

/// The counters of a response.
pub fn counters(stats: &GetStatsResponse) -> Counters {
    Counters {
        received: stats.received,
        unique_processed: stats.unique_processed,
        duplicate_dropped: stats.duplicate_dropped,
        conflicts: stats.conflicts,
    }
}

/// The counters per topic of a response.
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
