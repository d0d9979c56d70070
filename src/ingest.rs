//! The write path from admission to acknowledgement: events wait in the queue of their lane, each
//! lane commits one batch after the other, and everyone who waits learns what became of their own
//! events.
//!
//! Callers only wait here. The lane tasks own the writing, so a caller that goes away changes
//! nothing about what is stored and counted.

use std::sync::{
    Arc, Mutex, MutexGuard, PoisonError,
    atomic::{AtomicUsize, Ordering},
};

use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::Span;

use crate::{
    access::{Account, CallerKey},
    event::{NewEvent, Outcome},
    limits::{
        CALLER_SHARE, LANE_QUEUE_REQUESTS, QUEUE_BYTES, QUEUED_EVENT_OVERHEAD, STREAM_QUEUE_BYTES,
    },
    load::{Bound, Full, Permit},
    store::{self, Counters, Store, lane_of},
};

mod batch;
mod costly;
mod lane;
mod settle;

/// Why events were not stored. None of these says anything about the events themselves.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    /// The queue is full; nothing was done.
    #[error("{}", .0.queue())]
    QueueFull(Full),
    /// The store did not commit in time. Perhaps it did and could not say so.
    #[error("the database is unavailable")]
    Unavailable(#[source] Arc<store::Error>),
    /// The service is stopping; nothing was done.
    #[error("the service is shutting down")]
    Stopping,
}

/// What to do with events that the queue has no room for.
#[derive(Debug, Clone, Copy)]
pub enum Admission<'a> {
    /// Refuse them at once.
    Refuse,
    /// Wait for room, in the queue and in the producer's own share of it.
    Wait(&'a Share),
}

/// How much of the queue one producer takes at most, so that there is room for the others.
#[derive(Debug)]
pub struct Share(Arc<Semaphore>);

impl Default for Share {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(STREAM_QUEUE_BYTES)))
    }
}

/// Counters of this process.
#[derive(Debug, Clone, Copy, Default)]
pub struct ProcessCounters {
    /// Judged events, counted when their batch is committed.
    pub judged: Counters,
    /// Invalid events.
    pub rejected: i64,
}

/// A handle to the write path. Clones are handles to the same one.
#[derive(Debug, Clone)]
pub struct Ingest {
    lanes: Arc<[mpsc::Sender<Submission>]>,
    room: Bound,
    shared: Arc<Shared>,
    tasks: TaskTracker,
}

/// What the lane tasks and all handles have in common.
#[derive(Debug, Default)]
struct Shared {
    counters: Mutex<ProcessCounters>,
    /// Lanes whose batch the store has not taken yet although it was tried.
    stuck: AtomicUsize,
    /// Told of every commit.
    committed: Arc<Notify>,
    /// Cancelled when nothing more will be taken in.
    closing: CancellationToken,
    /// Cancelled when a lane task is gone although it was not closed: it panicked.
    broken: CancellationToken,
}

/// What a lane answers: one outcome per event. None: the store refuses the event although it is valid,
/// which is a fault of the service.
type Reply = Result<Vec<Option<Outcome>>, Error>;

/// The part of a request that goes to one lane.
#[derive(Debug)]
struct Submission {
    events: Vec<NewEvent>,
    bytes: usize,
    reply: oneshot::Sender<Reply>,
    /// Whose events they are.
    account: Account,
    /// That of the call.
    span: Span,
    /// Given back when the reply is sent.
    _room: Arc<Room>,
}

impl Submission {
    /// Charges for what events with these outcomes were compared with.
    fn charge(&self, outcomes: &[Option<Outcome>]) {
        let outcomes = outcomes.iter().flatten();
        self.account.charge(outcomes.map(|outcome| outcome.compared_bytes).sum());
    }

    fn answer(self, reply: Reply) {
        if let Ok(outcomes) = &reply {
            self.charge(outcomes);
        }
        // Whoever waited may have gone away.
        let _ = self.reply.send(reply);
    }
}

/// Room in the queue that a request takes.
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
                let (submissions, queue) = mpsc::channel(LANE_QUEUE_REQUESTS);
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
        let room = Bound::new(QUEUE_BYTES, QUEUE_BYTES / CALLER_SHARE);
        Self { lanes, room, shared, tasks }
    }

    /// Puts the events of one request into the queues of their lanes. Once this has returned they
    /// will be stored whatever becomes of the caller, unless the store fails. Dropped before, nothing
    /// was done. `message` is how many bytes the events keep in memory if their texts are slices of a
    /// message, which may hold more than them. `account` says whose events they are.
    pub async fn submit(
        &self,
        events: Vec<NewEvent>,
        message: usize,
        admission: Admission<'_>,
        account: Account,
    ) -> Result<Pending, Error> {
        #[cfg(feature = "planted-bugs")]
        if let Some(outcomes) = crate::planted::seen_before(&events) {
            return Ok(Pending::answered(outcomes));
        }
        let texts: usize = events.iter().map(NewEvent::bytes).sum();
        let cost = texts.max(message) + events.len() * QUEUED_EVENT_OVERHEAD;
        let room = Arc::new(self.room(cost, admission, account.caller()).await?);

        let mut pending = Pending { events: events.len(), parts: Vec::new() };
        let parts = self.split(events);
        // All slots are taken before anything is sent: a request is admitted whole or not at all.
        let mut sending = Vec::new();
        for (lane, part) in self.lanes.iter().zip(parts) {
            if part.events.is_empty() {
                continue;
            }
            let slot = match admission {
                Admission::Wait(_) => lane.reserve().await.map_err(|_| Error::Stopping)?,
                Admission::Refuse => lane.try_reserve().map_err(|error| match error {
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

    /// The part of each lane.
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
        admission: Admission<'_>,
        caller: &CallerKey,
    ) -> Result<Room, Error> {
        Ok(match admission {
            Admission::Wait(Share(bound)) => {
                // A request that is larger than all of it takes all of it.
                let bytes = u32::try_from(cost.min(STREAM_QUEUE_BYTES)).unwrap_or(u32::MAX);
                let of_stream = Arc::clone(bound).acquire_many_owned(bytes).await;
                let of_stream = of_stream.map_err(|_| Error::Stopping)?;
                let queue = self.room.take(caller, cost).await.ok_or(Error::Stopping)?;
                Room { _of_stream: Some(of_stream), _queue: queue }
            }
            Admission::Refuse => {
                let queue = self.room.try_take(caller, cost).map_err(Error::QueueFull)?;
                Room { _of_stream: None, _queue: queue }
            }
        })
    }

    /// Counts events that were found invalid and never submitted.
    pub fn count_rejected(&self, events: usize) {
        self.shared.counters().rejected += events as i64;
    }

    /// What this process has counted since it started.
    pub fn counters(&self) -> ProcessCounters {
        *self.shared.counters()
    }

    /// Whether the store takes what is committed, or last did.
    pub fn is_flowing(&self) -> bool {
        self.shared.stuck.load(Ordering::Relaxed) == 0 && !self.shared.broken.is_cancelled()
    }

    /// Waits until a lane task panics, after which nothing of its topics is stored any more.
    pub async fn broken(&self) {
        self.shared.broken.cancelled().await;
    }

    /// How many requests wait in each lane.
    pub fn waiting(&self) -> impl Iterator<Item = usize> {
        self.lanes.iter().map(|lane| lane.max_capacity() - lane.capacity())
    }

    /// How much of [`QUEUE_BYTES`] is taken.
    pub fn waiting_bytes(&self) -> usize {
        self.room.used()
    }

    /// What is told of every commit of this process.
    pub fn committed(&self) -> Arc<Notify> {
        Arc::clone(&self.shared.committed)
    }

    /// Takes nothing more in, and waits until everything that was submitted is stored.
    pub async fn drain(&self) {
        self.shared.closing.cancel();
        self.tasks.wait().await;
    }
}

impl Shared {
    fn counters(&self) -> MutexGuard<'_, ProcessCounters> {
        self.counters.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What of a request goes to one lane.
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
    /// For each lane, which events went there, and its reply to come.
    parts: Vec<(Vec<usize>, oneshot::Receiver<Reply>)>,
}

impl Pending {
    /// Outcomes that are known already.
    #[cfg(feature = "planted-bugs")]
    fn answered(outcomes: Vec<Option<Outcome>>) -> Self {
        let (events, (reply, answer)) = (outcomes.len(), oneshot::channel());
        let _ = reply.send(Ok(outcomes));
        Self { events, parts: vec![((0..events).collect(), answer)] }
    }

    /// Waits for the commits. One outcome per event, in the order of submission; none if the store
    /// refuses the event although it is valid.
    pub async fn outcomes(self) -> Result<Vec<Option<Outcome>>, Error> {
        let mut outcomes: Vec<Option<Outcome>> = vec![None; self.events];
        for (indexes, reply) in self.parts {
            #[cfg(feature = "planted-bugs")]
            let reply = crate::planted::in_time(reply);
            // The lane task answers everything it takes; it is only gone if it panicked, and then
            // nobody knows how far it got.
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

/// A submission, and where it is answered.
#[cfg(test)]
fn submission(events: Vec<NewEvent>, bytes: usize) -> (Submission, oneshot::Receiver<Reply>) {
    let caller = CallerKey::new(None, None);
    let queue = Bound::new(1, 1).try_take(&caller, 1).expect("one permit");
    let room = Room { _of_stream: None, _queue: queue };
    let (reply, answer) = oneshot::channel();
    let (account, span) = (crate::access::Identity::ANYBODY.account(caller), Span::none());
    (Submission { events, bytes, reply, account, span, _room: Arc::new(room) }, answer)
}
