//! The feed: stored events in the order of their commits, from any place on, and live.
//!
//! There is one way of reading, by position from the store. Memory only says how far one can read:
//! the heads of the lanes, asked again after commits of this process and, for those of others, every
//! few milliseconds while somebody reads. So nothing can be lost between catching up and being live,
//! and a slow reader costs what it holds in its hands.

use std::{collections::VecDeque, sync::Arc};

use tokio::{
    sync::{Mutex, Notify, OwnedSemaphorePermit, Semaphore, watch},
    time::{Instant, sleep, sleep_until},
};
use tokio_util::{
    sync::CancellationToken,
    task::{TaskTracker, task_tracker::TaskTrackerToken},
};
use tracing::{info, warn};

use crate::{
    cursor::Cursor,
    event::Event,
    limits::{
        CHECKPOINT_INTERVAL, FEED_POLL_INTERVAL, FEED_POLL_PAUSE, FEED_READ_BYTES,
        FEED_READ_EVENTS, FEED_READS, FEED_SCAN_EVENTS, MAX_PAGE_BYTES, RETRY_DELAY, SUBSCRIBERS,
    },
    store::{self, FeedQuery, Page, Place, Store, lane_of},
};

/// Why a subscription does not begin.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The cursor names events that the store does not have yet.
    #[error("is ahead of this store; begin from the start if it was set back")]
    Future,
    /// There are [`SUBSCRIBERS`] already.
    #[error("too many subscribe already")]
    TooMany,
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
    /// How many more may subscribe.
    seats: Arc<Semaphore>,
    closing: CancellationToken,
    /// Whoever holds the store.
    open: TaskTracker,
}

impl Feed {
    /// A feed of what is in the store. `committed` is told when this process has committed.
    pub fn start(store: &Arc<dyn Store>, committed: Arc<Notify>) -> Self {
        let feed = Self {
            store: Arc::clone(store),
            heads: Arc::new(watch::Sender::new(vec![0; usize::from(store.lanes())])),
            asking: Arc::default(),
            joined: Arc::new(Notify::new()),
            reads: Arc::new(Semaphore::new(FEED_READS)),
            seats: Arc::new(Semaphore::new(SUBSCRIBERS)),
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
            let asked = self.ask().await;
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

    /// Begins to read events of these topics, or of all.
    pub async fn subscribe(
        &self,
        start: Start,
        topics: Arc<[String]>,
    ) -> Result<Subscription, Error> {
        let seat = Arc::clone(&self.seats).try_acquire_owned().map_err(|_| Error::TooMany)?;
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
        let lanes = self.store.lanes();
        let is_in_scope =
            |lane| topics.is_empty() || topics.iter().any(|topic| lane_of(topic, lanes) == lane);
        let told = Cursor::Feed(positions.clone());
        let lanes = (0..).zip(positions);
        let lanes = lanes.map(|(lane, at)| LaneReader::new(at, is_in_scope(lane))).collect();
        Ok(Subscription {
            feed: self.clone(),
            heads: receiver,
            topics,
            lanes,
            told,
            is_behind: true,
            _seat: seat,
            _open: self.open.token(),
        })
    }
}

/// One reader's place in the feed.
pub struct Subscription {
    feed: Feed,
    heads: watch::Receiver<Vec<i64>>,
    topics: Arc<[String]>,
    lanes: Vec<LaneReader>,
    /// The cursor that the reader has.
    told: Cursor,
    /// Whether the reader was not yet told that it has everything.
    is_behind: bool,
    _seat: OwnedSemaphorePermit,
    /// Let go of last.
    _open: TaskTrackerToken,
}

/// A subscription's place in one lane.
#[derive(Debug)]
struct LaneReader {
    /// Whether topics of the subscription are in this lane.
    is_in_scope: bool,
    /// The number of the last event that was read.
    read: i64,
    /// What was read and not given out.
    waiting: VecDeque<Event>,
    /// The number of the last event that was given out or passed.
    passed: i64,
    /// Events to read at once.
    limit: usize,
}

/// What a subscription brings next.
#[derive(Debug)]
pub enum Frame {
    /// Events, each with the cursor behind it, and the cursor behind all of them.
    Events(Vec<(Event, Cursor)>, Cursor),
    /// Nothing but the place: it moved although nothing matched.
    Checkpoint(Cursor),
    /// There is nothing more for now.
    CaughtUp(Cursor),
}

impl Subscription {
    /// Waits for what comes next. May be dropped while waiting: nothing is lost.
    pub async fn next(&mut self) -> Result<Frame, store::Error> {
        let checkpoint_due = Instant::now() + CHECKPOINT_INTERVAL;
        loop {
            let heads = self.heads.borrow_and_update().clone();
            if self.lanes.iter().zip(&heads).any(|(lane, head)| lane.read > *head) {
                return Err(store::Error::Unavailable("the store was set back".into()));
            }
            let is_read = self.fill(&heads).await?;
            let events = self.merge(&heads);
            if !events.is_empty() {
                return Ok(Frame::Events(events, self.tell()));
            }
            if is_read {
                // Nothing matched so far.
                if Instant::now() >= checkpoint_due {
                    return Ok(Frame::Checkpoint(self.tell()));
                }
                continue;
            }
            for (lane, head) in self.lanes.iter_mut().zip(heads) {
                // Lanes out of scope are passed without being read.
                lane.read = lane.read.max(head);
                lane.passed = lane.read;
            }
            if std::mem::replace(&mut self.is_behind, false) {
                #[cfg(feature = "planted-bugs")]
                if crate::planted::is(crate::planted::Bug::BroadcastOnly) {
                    let live = self.lanes.iter_mut().zip(self.feed.ask().await?);
                    live.for_each(|(lane, head)| (lane.read, lane.passed) = (head, head));
                }
                return Ok(Frame::CaughtUp(self.tell()));
            }
            tokio::select! {
                // The feed lives as long as its handle in here.
                _ = self.heads.changed() => (),
                () = sleep_until(checkpoint_due), if self.cursor() != self.told => {
                    return Ok(Frame::Checkpoint(self.tell()));
                }
            }
        }
    }

    /// Reads on in each lane of which nothing waits. Says whether there was anything to read.
    async fn fill(&mut self, heads: &[i64]) -> Result<bool, store::Error> {
        let mut is_read = false;
        for (number, (lane, &head)) in self.lanes.iter_mut().zip(heads).enumerate() {
            if !lane.is_in_scope || !lane.waiting.is_empty() || lane.read >= head {
                continue;
            }
            is_read = true;
            // Numbers have no gaps, so without topics this is how many events there are.
            let numbers = match self.topics.is_empty() {
                true => lane.limit as i64,
                false => FEED_SCAN_EVENTS,
            };
            let last = head.min(lane.read + numbers);
            let query = FeedQuery {
                lane: number as u16,
                first: lane.read + 1,
                last,
                topics: Arc::clone(&self.topics),
                limit: lane.limit,
                max_bytes: FEED_READ_BYTES,
            };
            let _turn = self.feed.reads.acquire().await;
            lane.take(self.feed.store.read(query).await?, last);
            self.is_behind |= lane.read < head;
        }
        Ok(is_read)
    }

    /// Gives out what waits in the order of time, as long as every lane has its say: a frame of it.
    fn merge(&mut self, heads: &[i64]) -> Vec<(Event, Cursor)> {
        let mut events = Vec::new();
        let mut bytes = 0;
        let has_no_say = |(lane, head): (&LaneReader, &i64)| {
            lane.is_in_scope && lane.waiting.is_empty() && lane.read < *head
        };
        while events.len() < FEED_READ_EVENTS.1 && !self.lanes.iter().zip(heads).any(has_no_say) {
            let waiting = self.lanes.iter_mut().filter(|lane| !lane.waiting.is_empty());
            let next = waiting.min_by_key(|lane| lane.waiting.front().map(Place::from));
            let Some(lane) = next else { break };
            let size = lane.waiting.front().map_or(0, |event| event.payload.as_str().len());
            if bytes + size > MAX_PAGE_BYTES && !events.is_empty() {
                break;
            }
            bytes += size;
            let Some(event) = lane.give() else { break };
            events.push((event, self.cursor()));
        }
        events
    }

    /// The cursor behind what was passed.
    fn cursor(&self) -> Cursor {
        #[cfg(feature = "planted-bugs")]
        if crate::planted::is(crate::planted::Bug::CursorAhead) {
            return Cursor::Feed(self.lanes.iter().map(|lane| lane.read).collect());
        }
        Cursor::Feed(self.lanes.iter().map(|lane| lane.passed).collect())
    }

    /// The same, which the reader is about to have.
    fn tell(&mut self) -> Cursor {
        self.told = self.cursor();
        self.told.clone()
    }
}

impl LaneReader {
    fn new(position: i64, is_in_scope: bool) -> Self {
        let (limit, _) = FEED_READ_EVENTS;
        Self { is_in_scope, read: position, waiting: VecDeque::new(), passed: position, limit }
    }

    /// Takes what was read up to `last`, or up to its end if more follows.
    fn take(&mut self, page: Page, last: i64) {
        let is_cut = page.more && page.events.len() < self.limit;
        // What the store sends beyond the bytes asked for is wasted, so ask for few large events.
        self.limit = match is_cut {
            true => page.events.len().max(1),
            false => (self.limit * 4).min(FEED_READ_EVENTS.1),
        };
        self.read = match page.events.last() {
            Some(end) if page.more => end.position.seq,
            _ => last,
        };
        self.waiting = page.events.into();
        if self.waiting.is_empty() {
            self.passed = self.read;
        }
    }

    /// Gives out the first of what waits, and passes what follows up to the next one.
    fn give(&mut self) -> Option<Event> {
        let event = self.waiting.pop_front()?;
        self.passed = if self.waiting.is_empty() { self.read } else { event.position.seq };
        Some(event)
    }
}
