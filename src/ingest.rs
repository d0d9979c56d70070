//! The write path from admission to acknowledgement. Events wait in the queue of their lane, each
//! lane commits one batch after another, and each request gets the outcomes of its events.
//!
//! Callers only wait. The lane tasks write, so a disconnected caller does not affect what is stored
//! and counted.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use parking_lot::Mutex;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::Span;

use crate::{
    access::{Account, CallerKey},
    admission::{Bound, Full, Permit},
    event::{NewEvent, Outcome},
    limits::{
        CALLER_SHARE, MAX_LANE_REQUESTS, MAX_QUEUE_BYTES, MAX_STREAM_QUEUE_BYTES,
        QUEUED_EVENT_OVERHEAD,
    },
    store::{self, Counters, Store, lane_of},
};

mod batch;
mod costly;
mod lane;
mod settle;

/// Why events were not stored. The events themselves are never the reason.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    /// The queue is full; nothing was stored.
    #[error("the queue is full")]
    QueueFull(Full),
    /// The store did not confirm the commit in time. It may have committed.
    #[error("the database is unavailable")]
    Unavailable(#[source] Arc<store::Error>),
    /// The service is shutting down; nothing was stored.
    #[error("the service is shutting down")]
    Stopping,
}

/// What to do when the queue is full.
#[derive(Debug, Clone, Copy)]
pub enum WhenFull<'a> {
    /// Reject the events.
    Reject,
    /// Wait for capacity, in the queue and in the producer's share of it.
    Wait(&'a Share),
}

/// The part of the queue that one producer may use, so that it cannot block others.
#[derive(Debug)]
pub struct Share(Arc<Semaphore>);

impl Default for Share {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(MAX_STREAM_QUEUE_BYTES)))
    }
}

/// Counters since the start of the process.
#[derive(Debug, Clone, Copy, Default)]
pub struct ProcessCounters {
    /// Events with an outcome, counted when their batch is committed.
    pub judged: Counters,
    /// Invalid events.
    pub rejected: i64,
}

/// A handle to the write path. Clones share it.
#[derive(Debug, Clone)]
pub struct Ingest {
    lanes: Arc<[mpsc::Sender<Submission>]>,
    room: Bound,
    shared: Arc<Shared>,
    tasks: TaskTracker,
}

/// State shared by the lane tasks and all handles.
#[derive(Debug, Default)]
struct Shared {
    counters: Mutex<ProcessCounters>,
    /// Number of lanes that are retrying a batch.
    stuck: AtomicUsize,
    /// Notified after each commit.
    committed: Arc<Notify>,
    /// Cancelled when no more events are accepted.
    closing: CancellationToken,
    /// Cancelled when a lane task panicked.
    broken: CancellationToken,
}

/// The result of an event that was submitted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Settled {
    /// It is stored, now or before.
    Judged(Outcome),
    /// The store refuses it although it is valid, which is a bug.
    RefusedByStore,
}

impl Settled {
    /// Bytes of a stored payload that judging the event has read.
    fn compared_bytes(&self) -> usize {
        match self {
            Self::Judged(outcome) => outcome.compared_bytes,
            Self::RefusedByStore => 0,
        }
    }
}

/// Reply of a lane: one result per event.
type Reply = Result<Vec<Settled>, Error>;

/// The events of a request that belong to one lane.
#[derive(Debug)]
struct Submission {
    events: Vec<NewEvent>,
    bytes: usize,
    reply: oneshot::Sender<Reply>,
    /// Who is charged for the events.
    account: Account,
    /// Span of the call.
    span: Span,
    /// Released when the reply is sent.
    _room: Arc<Room>,
}

impl Submission {
    /// Charges the comparisons that these outcomes needed.
    fn charge(&self, outcomes: &[Settled]) {
        self.account.charge(outcomes.iter().map(Settled::compared_bytes).sum());
    }

    fn answer(self, reply: Reply) {
        if let Ok(outcomes) = &reply {
            self.charge(outcomes);
        }
        // The caller may have disconnected.
        let _ = self.reply.send(reply);
    }
}

/// Capacity of the queue that a request occupies.
#[derive(Debug)]
struct Room {
    _of_stream: Option<OwnedSemaphorePermit>,
    _queue: Permit,
}

impl Ingest {
    /// Starts one task per lane of the store.
    pub fn start(store: &Arc<dyn Store>) -> Self {
        let shared = Arc::new(Shared::default());
        let tasks = TaskTracker::new();
        let lanes = (0..store.lanes())
            .map(|lane| {
                let (submissions, queue) = mpsc::channel(MAX_LANE_REQUESTS);
                let store = Arc::clone(store);
                let working = lane::run(lane, store, queue, Arc::clone(&shared));
                let broken = shared.broken.clone().drop_guard();
                tasks.spawn(async {
                    working.await;
                    broken.disarm();
                });
                submissions
            })
            .collect();
        tasks.close();
        let room = Bound::new(MAX_QUEUE_BYTES, MAX_QUEUE_BYTES / CALLER_SHARE);
        Self { lanes, room, shared, tasks }
    }

    /// Queues the events of one request. Once this returns, they will be stored even if the caller
    /// disconnects, unless the store fails. If the future is dropped before, none of them will be.
    /// `message` is the size in bytes of the message that the events keep in memory, if they are
    /// slices of one. `account` is charged for the events.
    pub async fn submit(
        &self,
        events: Vec<NewEvent>,
        message: usize,
        when_full: WhenFull<'_>,
        account: Account,
    ) -> Result<Pending, Error> {
        let texts: usize = events.iter().map(NewEvent::bytes).sum();
        let cost = texts.max(message) + events.len() * QUEUED_EVENT_OVERHEAD;
        let room = Arc::new(self.room(cost, when_full, account.caller()).await?);

        let mut pending = Pending { events: events.len(), parts: Vec::new() };
        let parts = self.split(events);
        // All slots are reserved before anything is sent, so that a request is admitted whole or
        // not at all.
        let mut sending = Vec::new();
        for (lane, part) in self.lanes.iter().zip(parts) {
            if part.events.is_empty() {
                continue;
            }
            let slot = match when_full {
                WhenFull::Wait(_) => lane.reserve().await.map_err(|_| Error::Stopping)?,
                WhenFull::Reject => lane.try_reserve().map_err(|error| match error {
                    mpsc::error::TrySendError::Full(()) => Error::QueueFull(Full::All),
                    mpsc::error::TrySendError::Closed(()) => Error::Stopping,
                })?,
            };
            sending.push((slot, part));
        }
        for (slot, Part { indexes, events, bytes }) in sending {
            let (reply, outcomes) = oneshot::channel();
            let span = Span::current();
            let (account, _room) = (account.clone(), Arc::clone(&room));
            slot.send(Submission { events, bytes, reply, account, span, _room });
            pending.parts.push((indexes, outcomes));
        }
        Ok(pending)
    }

    /// Splits events by lane.
    fn split(&self, events: Vec<NewEvent>) -> Vec<Part> {
        let lanes = self.lanes.len();
        let lane = |event: &NewEvent| usize::from(lane_of(&event.key.topic, lanes as u16));
        let lane_of_each: Vec<usize> = events.iter().map(lane).collect();
        let mut sizes = vec![0; lanes];
        lane_of_each.iter().for_each(|&lane| sizes[lane] += 1);

        let mut parts: Vec<Part> = sizes.into_iter().map(Part::with_capacity).collect();
        for (index, (event, lane)) in events.into_iter().zip(lane_of_each).enumerate() {
            let part = &mut parts[lane];
            part.indexes.push(index);
            part.bytes += event.bytes();
            part.events.push(event);
        }
        parts
    }

    async fn room(
        &self,
        cost: usize,
        when_full: WhenFull<'_>,
        caller: &CallerKey,
    ) -> Result<Room, Error> {
        Ok(match when_full {
            WhenFull::Wait(Share(bound)) => {
                // A request that exceeds the share takes all of it.
                let bytes = u32::try_from(cost.min(MAX_STREAM_QUEUE_BYTES)).unwrap_or(u32::MAX);
                let of_stream = Arc::clone(bound).acquire_many_owned(bytes).await;
                let of_stream = of_stream.map_err(|_| Error::Stopping)?;
                let queue = self.room.take(caller, cost).await.ok_or(Error::Stopping)?;
                Room { _of_stream: Some(of_stream), _queue: queue }
            }
            WhenFull::Reject => {
                let queue = self.room.try_take(caller, cost).map_err(Error::QueueFull)?;
                Room { _of_stream: None, _queue: queue }
            }
        })
    }

    /// Counts invalid events, which are never submitted.
    pub fn count_rejected(&self, events: usize) {
        self.shared.counters.lock().rejected += events as i64;
    }

    /// Counters since the start of the process.
    pub fn counters(&self) -> ProcessCounters {
        *self.shared.counters.lock()
    }

    /// Whether no lane is retrying a batch.
    pub fn is_flowing(&self) -> bool {
        self.shared.stuck.load(Ordering::Relaxed) == 0 && !self.shared.broken.is_cancelled()
    }

    /// Waits until a lane task panics. Events of its topics are no longer stored then.
    pub async fn broken(&self) {
        self.shared.broken.cancelled().await;
    }

    /// Number of requests waiting in each lane.
    pub fn waiting(&self) -> impl Iterator<Item = usize> {
        self.lanes.iter().map(|lane| lane.max_capacity() - lane.capacity())
    }

    /// Bytes of [`MAX_QUEUE_BYTES`] in use.
    pub fn waiting_bytes(&self) -> usize {
        self.room.used()
    }

    /// Notified after each commit of this process.
    pub fn committed(&self) -> Arc<Notify> {
        Arc::clone(&self.shared.committed)
    }

    /// Accepts no more events, and waits until all submitted ones are stored.
    pub async fn drain(&self) {
        self.shared.closing.cancel();
        self.tasks.wait().await;
    }
}

/// One lane's part of a request.
struct Part {
    indexes: Vec<usize>,
    events: Vec<NewEvent>,
    bytes: usize,
}

impl Part {
    fn with_capacity(events: usize) -> Self {
        let (indexes, events) = (Vec::with_capacity(events), Vec::with_capacity(events));
        Self { indexes, events, bytes: 0 }
    }
}

/// Submitted events whose outcomes are not known yet.
#[derive(Debug)]
pub struct Pending {
    events: usize,
    /// For each lane, the indexes of its events and the receiver of its reply.
    parts: Vec<(Vec<usize>, oneshot::Receiver<Reply>)>,
}

impl Pending {
    /// Waits for the commits. One result per event, in the order of submission.
    pub async fn outcomes(self) -> Result<Vec<Settled>, Error> {
        let mut outcomes = vec![Settled::RefusedByStore; self.events];
        for (indexes, reply) in self.parts {
            // A lane task replies to everything it accepts, unless it panicked. How far it got is
            // then unknown.
            let gone = |_| {
                Error::Unavailable(Arc::new(store::Error::Unknown("writer task panicked".into())))
            };
            let part = reply.await.map_err(gone)??;
            for (index, outcome) in indexes.into_iter().zip(part) {
                outcomes[index] = outcome;
            }
        }
        Ok(outcomes)
    }
}

/// A submission, and the receiver of its reply.
#[cfg(test)]
fn submission(events: Vec<NewEvent>, bytes: usize) -> (Submission, oneshot::Receiver<Reply>) {
    let caller = CallerKey::new(None, None);
    let queue = Bound::new(1, 1).try_take(&caller, 1).expect("one permit");
    let room = Room { _of_stream: None, _queue: queue };
    let (reply, answer) = oneshot::channel();
    let (account, span) = (crate::access::Identity::ANYBODY.account(caller), Span::none());
    (Submission { events, bytes, reply, account, span, _room: Arc::new(room) }, answer)
}
