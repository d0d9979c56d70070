//! The feed: stored events in commit order, from any position, and live.
//!
//! Events are always read from the store, by position. Memory only has the heads of the lanes, up
//! to which events can be read. Heads are polled after commits of this process and, for commits of
//! other instances, every few milliseconds while there are subscribers. So no event is lost between
//! catching up and live reading, and a slow subscriber costs no more than the events it is being
//! sent.

use std::{
    panic::AssertUnwindSafe,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use futures_util::FutureExt;
use tokio::{
    sync::{Mutex, Notify, watch},
    time::sleep,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::{info, warn};

use crate::{
    access::CallerKey,
    admission::{Admission, Bound, Full},
    cursor::Cursor,
    event::Position,
    limits::{FEED_POLL_INTERVAL, FEED_POLL_PAUSE, MAX_FEED_READS, RETRY_DELAY},
    store::{self, LaneState, Mark, Store},
    token,
};

pub(crate) use self::memory::Held;
pub use self::subscription::{Frame, Subscription};

mod memory;
mod subscription;

/// Why a subscription cannot start or continue.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The database was restored to a state before the subscription's position.
    #[error("the cursor {}", token::Error::Restored)]
    Restored,
    /// The subscriber limit is reached.
    #[error("subscriber limit reached")]
    TooMany(Full),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] store::Error),
}

/// Where a subscription starts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Start {
    /// At the first stored event.
    Beginning,
    /// At the next event to be stored.
    End,
    /// After a cursor.
    Cursor(Cursor),
}

/// How far the feed can be read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Heads {
    /// The last event of each lane.
    marks: Vec<Mark>,
    /// How often the database was found to be restored to an earlier state.
    restored: u64,
}

/// A handle to the feed. Clones share it.
#[derive(Clone)]
pub struct Feed {
    store: Arc<dyn Store>,
    heads: Arc<watch::Sender<Heads>>,
    /// Number of polls of the heads that were started, and of the last one that succeeded.
    asks: Arc<AtomicU64>,
    asking: Arc<Mutex<u64>>,
    /// Notified when a subscription starts.
    joined: Arc<Notify>,
    /// Limits concurrent reads, in total and per caller, so that other reads find a connection.
    reads: Bound,
    admission: Admission,
    closing: CancellationToken,
    /// Tracks the users of the store.
    open: TaskTracker,
}

impl Feed {
    /// The feed of a store. `committed` is notified after each commit of this process.
    pub fn start(store: &Arc<dyn Store>, committed: Arc<Notify>, admission: Admission) -> Self {
        let feed = Self {
            store: Arc::clone(store),
            heads: Arc::new(watch::Sender::new(Heads {
                marks: vec![Mark::default(); usize::from(store.lanes())],
                restored: 0,
            })),
            asks: Arc::default(),
            asking: Arc::default(),
            joined: Arc::new(Notify::new()),
            reads: Bound::new(MAX_FEED_READS, MAX_FEED_READS - 1),
            admission,
            closing: CancellationToken::new(),
            open: TaskTracker::new(),
        };
        let (following, closing) = (feed.clone(), feed.closing.clone());
        feed.open.spawn(async move {
            closing.run_until_cancelled(following.follow(committed)).await;
        });
        feed.open.close();
        feed
    }

    /// Number of subscriptions.
    pub fn subscribers(&self) -> usize {
        self.heads.receiver_count()
    }

    /// Releases the store after the last subscription has ended.
    pub async fn close(&self) {
        self.closing.cancel();
        self.open.wait().await;
    }

    /// Polls the heads while there are subscribers.
    async fn follow(self, committed: Arc<Notify>) {
        let mut is_following = true;
        loop {
            if self.heads.is_closed() {
                self.joined.notified().await;
            }
            // A panic must not stop the feed any more than an outage does.
            let asked = AssertUnwindSafe(self.ask()).catch_unwind().await;
            let asked =
                asked.unwrap_or_else(|_| Err(store::Error::Unavailable("poll panicked".into())));
            let was_following = std::mem::replace(&mut is_following, asked.is_ok());
            if let Err(error) = asked {
                if was_following && !error.is_logged() {
                    warn!(error = store::chain(&error), "feed polling failed");
                }
                sleep(RETRY_DELAY).await;
                continue;
            }
            if !was_following {
                info!("feed polling recovered");
            }
            sleep(FEED_POLL_PAUSE).await;
            tokio::select! {
                () = committed.notified() => (),
                () = sleep(FEED_POLL_INTERVAL) => (),
            }
        }
    }

    /// Polls the heads, and wakes subscribers if there is more to read. Polls are serialized, so
    /// that heads only go back if the store does. The previous heads are checked in the same
    /// snapshot: if they have other events now, the database was restored to an earlier state.
    async fn ask(&self) -> Result<Heads, store::Error> {
        let before = self.asks.load(Ordering::SeqCst);
        let mut answered = self.asking.lock().await;
        if *answered > before {
            // Another task has polled since this was called.
            return Ok(self.heads.borrow().clone());
        }
        let number = self.asks.fetch_add(1, Ordering::SeqCst) + 1;
        let mut heads = self.heads.borrow().clone();
        let lanes = self.store.heads(store::numbers(&heads.marks)).await?;
        if !store::holds(&lanes, &heads.marks) {
            heads.restored += 1;
            warn!(
                "the database was restored to an earlier state; subscriptions past it will end \
                 with STORE_RESTORED"
            );
        }
        heads.marks = lanes.iter().map(|lane| lane.head).collect();
        self.heads.send_if_modified(|known| {
            let is_new = *known != heads;
            known.clone_from(&heads);
            is_new
        });
        *answered = number;
        Ok(heads)
    }

    /// Fails if the store no longer has the events of these marks.
    async fn check(&self, marks: &[Mark]) -> Result<(), Error> {
        let lanes = self.store.heads(store::numbers(marks)).await?;
        if store::holds(&lanes, marks) { Ok(()) } else { Err(Error::Restored) }
    }

    /// Whether a lane still has the event of a mark.
    async fn holds(&self, lane: u16, mark: Mark) -> Result<bool, store::Error> {
        let mut at = vec![0; usize::from(self.store.lanes())];
        at[usize::from(lane)] = mark.seq;
        let lanes = self.store.heads(at).await?;
        Ok(lanes.get(usize::from(lane)).is_some_and(|lane| lane.holds(&mark)))
    }

    /// The mark of a number in a lane, whose event was not read.
    async fn mark_at(&self, Position { lane, seq }: Position) -> Result<Mark, store::Error> {
        let mut at = vec![0; usize::from(self.store.lanes())];
        at[usize::from(lane)] = seq;
        Ok(self.marks_at(at).await?[usize::from(lane)])
    }

    /// The marks of these numbers, one per lane.
    async fn marks_at(&self, at: Vec<i64>) -> Result<Vec<Mark>, store::Error> {
        let lanes = self.store.heads(at.clone()).await?;
        let mark = |(seq, lane): (i64, LaneState)| Mark {
            seq,
            received_at: lane.found.and_then(|found| found.received_at),
        };
        Ok(at.into_iter().zip(lanes).map(mark).collect())
    }

    /// Starts a subscription of a caller to these topics, or to all if there are none.
    pub async fn subscribe(
        &self,
        caller: &CallerKey,
        start: Start,
        topics: Arc<[String]>,
    ) -> Result<Subscription, Error> {
        let permit = self.admission.subscription(caller).map_err(Error::TooMany)?;
        let receiver = self.heads.subscribe();
        self.joined.notify_one();
        let heads = self.ask().await?;
        let positions = match start {
            Start::Beginning => vec![Mark::default(); heads.marks.len()],
            Start::End => heads.marks,
            Start::Cursor(cursor) => {
                self.check(&cursor.marks()).await?;
                self.positions(cursor).await?
            }
        };
        Ok(Subscription::begin(self, receiver, heads.restored, topics, positions, caller, permit))
    }

    /// The position of a cursor in each lane.
    async fn positions(&self, cursor: Cursor) -> Result<Vec<Mark>, store::Error> {
        let (place, heads) = match cursor {
            Cursor::Feed(positions) => return Ok(positions),
            Cursor::Event { place, heads } => (place, heads),
        };
        let mut positions = self.marks_at(self.store.positions_at(place).await?).await?;
        for (position, head) in positions.iter_mut().zip(heads) {
            if head.seq <= position.seq {
                *position = head;
            }
        }
        positions[usize::from(place.position.lane)] =
            Mark { seq: place.position.seq, received_at: Some(place.received_at) };
        Ok(positions)
    }
}
