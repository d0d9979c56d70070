//! The feed: stored events in the order of their commits, from any place on, and live.
//!
//! There is one way of reading, by position from the store. Memory only says how far one can read:
//! the heads of the lanes, asked again after commits of this process and, for those of others, every
//! few milliseconds while somebody reads. So nothing can be lost between catching up and being live,
//! and a slow reader costs what it holds in its hands.

use std::{panic::AssertUnwindSafe, sync::Arc};

use futures_util::FutureExt;
use tokio::{
    sync::{Mutex, Notify, Semaphore, watch},
    time::sleep,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::{info, warn};

use crate::{
    cursor::Cursor,
    limits::{FEED_POLL_INTERVAL, FEED_POLL_PAUSE, FEED_READS, RETRY_DELAY},
    load::{CallerKey, Full, Load},
    store::{self, Store},
};

pub use self::{
    memory::Held,
    subscription::{Frame, Subscription},
};

mod memory;
mod subscription;

/// Why a subscription does not begin.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The cursor names events that the store does not have yet.
    #[error("is ahead of this store; begin from the start if it was set back")]
    Future,
    /// There are too many subscriptions already.
    #[error("there are too many subscriptions")]
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

/// A handle to the feed. Clones are handles to the same one.
#[derive(Clone)]
pub struct Feed {
    store: Arc<dyn Store>,
    heads: Arc<watch::Sender<Vec<i64>>>,
    asking: Arc<Mutex<()>>,
    /// Told when somebody begins to read.
    joined: Arc<Notify>,
    /// How many may read at once, so that other reads find a connection.
    reads: Arc<Semaphore>,
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
            heads: Arc::new(watch::Sender::new(vec![0; usize::from(store.lanes())])),
            asking: Arc::default(),
            joined: Arc::new(Notify::new()),
            reads: Arc::new(Semaphore::new(FEED_READS)),
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
                asked.unwrap_or_else(|_| Err(store::Error::Unavailable("asking panicked".into())));
            let was_following = std::mem::replace(&mut is_following, asked.is_ok());
            if let Err(error) = asked {
                if was_following {
                    warn!(error = store::chain(&error), "the feed stands still");
                }
                sleep(RETRY_DELAY).await;
                continue;
            }
            if !was_following {
                info!("the feed goes on");
            }
            sleep(FEED_POLL_PAUSE).await;
            tokio::select! {
                () = committed.notified() => (),
                () = sleep(FEED_POLL_INTERVAL) => (),
            }
        }
    }

    /// Asks for the heads, and wakes readers if there is more to read. One after the other, so that
    /// what is known never goes back unless the store does.
    async fn ask(&self) -> Result<Vec<i64>, store::Error> {
        let _turn = self.asking.lock().await;
        let heads = self.store.heads().await?;
        self.heads.send_if_modified(|known| {
            let is_new = *known != heads;
            known.clone_from(&heads);
            is_new
        });
        Ok(heads)
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
            Start::Beginning => vec![0; heads.len()],
            Start::End => heads.clone(),
            Start::Cursor(Cursor::Feed(positions)) => positions,
            Start::Cursor(Cursor::Event { place, heads }) => {
                let mut positions = self.store.positions_at(place).await?;
                positions.iter_mut().zip(heads).for_each(|(at, head)| *at = head.min(*at));
                positions[usize::from(place.position.lane)] = place.position.seq;
                positions
            }
        };
        if positions.iter().zip(&heads).any(|(position, head)| position > head) {
            return Err(Error::Future);
        }
        Ok(Subscription::begin(self, receiver, topics, positions, caller, permit))
    }
}
