//! The feed: stored events in the order of their commits, from any place on, and live.
//!
//! There is one way of reading, by position from the store. Memory only says how far one can read:
//! the heads of the lanes, asked again after commits of this process and, for those of others, every
//! few milliseconds while somebody reads. So nothing can be lost between catching up and being live,
//! and a slow reader costs what it holds in its hands.

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
    cursor::Cursor,
    event::Position,
    limits::{FEED_POLL_INTERVAL, FEED_POLL_PAUSE, FEED_READS, RETRY_DELAY},
    load::{Bound, Full, Load},
    store::{self, LaneState, Mark, Store},
    token,
};

pub use self::{
    memory::Held,
    subscription::{Frame, Subscription},
};

mod memory;
mod subscription;

/// Why a subscription does not begin, or does not go on.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The store was restored to a state before the subscription's place.
    #[error("the cursor {}", token::Error::Restored)]
    Restored,
    /// There are too many subscriptions already.
    #[error("subscriber limit reached")]
    TooMany(Full),
    /// The store does not answer.
    #[error(transparent)]
    Store(#[from] store::Error),
}

/// Where a subscription begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Start {
    /// With the first event that is stored.
    Beginning,
    /// With the next event that will be stored.
    End,
    /// Where a reader left off.
    Cursor(Cursor),
}

/// How far one can read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Heads {
    /// The last event of each lane.
    marks: Vec<Mark>,
    /// How often the store was found to be restored to an earlier state.
    restored: u64,
}

/// A handle to the feed. Clones are handles to the same one.
#[derive(Clone)]
pub struct Feed {
    store: Arc<dyn Store>,
    heads: Arc<watch::Sender<Heads>>,
    /// How often the heads have been asked for, and the last time that was answered.
    asks: Arc<AtomicU64>,
    asking: Arc<Mutex<u64>>,
    /// Told when somebody begins to read.
    joined: Arc<Notify>,
    /// How many may read at once, so that other reads find a connection. One caller never has all of them.
    reads: Bound,
    load: Load,
    closing: CancellationToken,
    /// Whoever holds the store.
    open: TaskTracker,
}

impl Feed {
    /// A feed of what is in the store. `committed` is told when this process has committed.
    pub fn start(store: &Arc<dyn Store>, committed: Arc<Notify>, load: Load) -> Self {
        let feed = Self {
            store: Arc::clone(store),
            heads: Arc::new(watch::Sender::new(Heads {
                marks: vec![Mark::default(); usize::from(store.lanes())],
                restored: 0,
            })),
            asks: Arc::default(),
            asking: Arc::default(),
            joined: Arc::new(Notify::new()),
            reads: Bound::new(FEED_READS, FEED_READS - 1),
            load,
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

    /// How many subscriptions there are.
    pub fn subscribers(&self) -> usize {
        self.heads.receiver_count()
    }

    /// Lets go of the store, once the last subscription has ended.
    pub async fn close(&self) {
        self.closing.cancel();
        self.open.wait().await;
    }

    /// Keeps asking for the heads while somebody reads.
    async fn follow(self, committed: Arc<Notify>) {
        let mut is_following = true;
        loop {
            if self.heads.is_closed() {
                self.joined.notified().await;
            }
            // A panic is a fault of the program, and stops the feed no more than an outage does.
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

    /// Asks for the heads, and wakes readers if there is more to read. One after the other, so that
    /// what is known never goes back unless the store does. In the same snapshot the heads that were known
    /// are looked at again: if other events are there now, the store was restored to an earlier state.
    async fn ask(&self) -> Result<Heads, store::Error> {
        let before = self.asks.load(Ordering::SeqCst);
        let mut answered = self.asking.lock().await;
        if *answered > before {
            // Another task has asked since this was called.
            return Ok(self.heads.borrow().clone());
        }
        let number = self.asks.fetch_add(1, Ordering::SeqCst) + 1;
        let mut heads = self.heads.borrow().clone();
        let lanes = self.store.heads(store::numbers(&heads.marks)).await?;
        if !store::holds(&lanes, &heads.marks) {
            heads.restored += 1;
            warn!(
                "the database was restored to an earlier state; subscriptions past it will end with STORE_RESTORED"
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

    /// Fails if the store does not have the events any more at which marks were made.
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

    /// The mark of a number in a lane that was passed without being read.
    async fn mark_at(&self, Position { lane, seq }: Position) -> Result<Mark, store::Error> {
        let mut at = vec![0; usize::from(self.store.lanes())];
        at[usize::from(lane)] = seq;
        Ok(self.marks_at(at).await?[usize::from(lane)])
    }

    /// The marks of some numbers, one for each lane.
    async fn marks_at(&self, at: Vec<i64>) -> Result<Vec<Mark>, store::Error> {
        let lanes = self.store.heads(at.clone()).await?;
        let mark = |(seq, lane): (i64, LaneState)| Mark {
            seq,
            received_at: lane.found.and_then(|found| found.received_at),
        };
        Ok(at.into_iter().zip(lanes).map(mark).collect())
    }

    /// Begins to read events of these topics, or of all, for a caller.
    pub async fn subscribe(
        &self,
        caller: &CallerKey,
        start: Start,
        topics: Arc<[String]>,
    ) -> Result<Subscription, Error> {
        let permit = self.load.subscription(caller).map_err(Error::TooMany)?;
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

    /// Where a cursor is in each lane.
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
