//! The feed: stored events in the order of their commits, from any place on, and live.
//!
//! There is one way of reading, by position from the store. Memory only says how far one can read:
//! the heads of the lanes, asked again after commits of this process and, for those of others, every
//! few milliseconds while somebody reads. So nothing can be lost between catching up and being live,
//! and a slow reader costs what it holds in its hands.

use std::sync::Arc;

use tokio::{
    sync::{Notify, Semaphore, watch},
    time::{Instant, sleep, sleep_until},
};
use tokio_util::{
    sync::CancellationToken,
    task::{TaskTracker, task_tracker::TaskTrackerToken},
};
use tracing::warn;

use crate::{
    cursor::Cursor,
    event::Event,
    limits::{
        CHECKPOINT_INTERVAL, FEED_POLL_INTERVAL, FEED_POLL_PAUSE, FEED_READ_EVENTS, FEED_READS,
        FEED_SCAN_EVENTS, MAX_PAGE_BYTES,
    },
    store::{self, FeedQuery, Page, Span, Store, lane_of},
};

/// Why a subscription does not begin.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The cursor names events that the store does not have yet.
    #[error("is ahead of this store; begin from the start if it was set back")]
    Future,
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
    /// Told when somebody begins to read.
    joined: Arc<Notify>,
    /// How many may read at once, so that other reads find a connection.
    reads: Arc<Semaphore>,
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
            joined: Arc::new(Notify::new()),
            reads: Arc::new(Semaphore::new(FEED_READS)),
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

    /// Lets go of the store, once the last subscription has ended.
    pub async fn close(&self) {
        self.closing.cancel();
        self.open.wait().await;
    }

    /// Keeps asking for the heads while somebody reads.
    async fn follow(self, committed: Arc<Notify>) {
        loop {
            if self.heads.is_closed() {
                self.joined.notified().await;
            }
            match self.store.heads().await {
                Ok(heads) => self.advance(heads),
                Err(error) => warn!(error = store::chain(&error), "cannot follow the feed"),
            }
            sleep(FEED_POLL_PAUSE).await;
            tokio::select! {
                () = committed.notified() => (),
                () = sleep(FEED_POLL_INTERVAL) => (),
            }
        }
    }

    /// Wakes readers if there is more to read.
    fn advance(&self, heads: Vec<i64>) {
        self.heads.send_if_modified(|known| {
            let before = known.clone();
            // What was asked for later may be answered earlier.
            known.iter_mut().zip(heads).for_each(|(known, head)| *known = head.max(*known));
            *known != before
        });
    }

    /// Begins to read events of these topics, or of all.
    pub async fn subscribe(
        &self,
        start: Start,
        topics: Arc<[String]>,
    ) -> Result<Subscription, Error> {
        let heads = self.store.heads().await?;
        let positions = match start {
            Start::Beginning => vec![0; heads.len()],
            Start::End => heads.clone(),
            Start::Cursor(Cursor::Feed(positions)) => positions,
            Start::Cursor(Cursor::Event(place)) => {
                let lane = usize::from(place.position.lane);
                if heads.get(lane).is_none_or(|&head| place.position.seq > head) {
                    return Err(Error::Future);
                }
                self.store.positions_at(place).await?
            }
        };
        if positions.iter().zip(&heads).any(|(position, head)| position > head) {
            return Err(Error::Future);
        }
        let lanes = self.store.lanes();
        let in_scope = (0..lanes)
            .map(|lane| {
                topics.is_empty() || topics.iter().any(|topic| lane_of(topic, lanes) == lane)
            })
            .collect();
        let receiver = self.heads.subscribe();
        self.advance(heads);
        self.joined.notify_one();
        Ok(Subscription {
            feed: self.clone(),
            heads: receiver,
            told: positions.clone(),
            positions,
            topics,
            in_scope,
            limit: FEED_READ_EVENTS.0,
            is_behind: true,
            _open: self.open.token(),
        })
    }
}

/// One reader's place in the feed.
pub struct Subscription {
    feed: Feed,
    heads: watch::Receiver<Vec<i64>>,
    /// The number of the last event that was passed, in each lane.
    positions: Vec<i64>,
    /// The positions that the reader knows.
    told: Vec<i64>,
    topics: Arc<[String]>,
    /// Which lanes the topics are in.
    in_scope: Vec<bool>,
    /// Events to read at once.
    limit: usize,
    /// Whether the reader was not yet told that it has everything.
    is_behind: bool,
    /// Let go of last.
    _open: TaskTrackerToken,
}

/// What a subscription brings next.
#[derive(Debug)]
pub enum Frame {
    /// Events, each with the cursor behind it, and the cursor behind all of them and what was hidden
    /// after them.
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
            let spans = self.spans(&heads);
            if spans.is_empty() {
                // Nothing that matches is hidden in the other lanes, up to their heads.
                self.positions.iter_mut().zip(&heads).for_each(|(at, head)| *at = *head.max(at));
                if std::mem::replace(&mut self.is_behind, false) {
                    return Ok(Frame::CaughtUp(self.tell()));
                }
                tokio::select! {
                    // The feed lives as long as its handle in here.
                    _ = self.heads.changed() => (),
                    () = sleep_until(checkpoint_due), if self.positions != self.told => {
                        return Ok(Frame::Checkpoint(self.tell()));
                    }
                }
                continue;
            }
            let page = self.read(&spans).await?;
            if !page.events.is_empty() {
                return Ok(self.pass(page, &spans));
            }
            self.pass_all(&spans);
            if Instant::now() >= checkpoint_due {
                return Ok(Frame::Checkpoint(self.tell()));
            }
        }
    }

    /// What is to be read: in each lane a part of what is committed.
    fn spans(&self, heads: &[i64]) -> Vec<Span> {
        let lanes = self.positions.iter().zip(heads).zip(&self.in_scope).enumerate();
        lanes
            .filter(|(_, ((position, head), in_scope))| **in_scope && head > position)
            .map(|(lane, ((&position, &head), _))| Span {
                lane: lane as u16,
                first: position + 1,
                last: head.min(position + FEED_SCAN_EVENTS),
            })
            .collect()
    }

    async fn read(&mut self, spans: &[Span]) -> Result<Page, store::Error> {
        let _turn = self.feed.reads.acquire().await;
        let query = FeedQuery {
            spans: spans.to_vec(),
            topics: Arc::clone(&self.topics),
            limit: self.limit,
            max_bytes: MAX_PAGE_BYTES,
        };
        let page = self.feed.store.read(query).await?;
        // To cut a page of large payloads the store must unpack all that it looks at: so few events
        // at once, and more while they are small.
        let (few, many) = FEED_READ_EVENTS;
        let is_cut = page.more && page.events.len() < self.limit;
        self.limit = if is_cut { few } else { (self.limit * 4).min(many) };
        Ok(page)
    }

    /// Passes the events of a page, and if it was the last one of its spans also what it left out.
    fn pass(&mut self, page: Page, spans: &[Span]) -> Frame {
        let mut events = Vec::with_capacity(page.events.len());
        for event in page.events {
            self.positions[usize::from(event.position.lane)] = event.position.seq;
            events.push((event, Cursor::Feed(self.positions.clone())));
        }
        if page.more {
            self.is_behind = true;
        } else {
            self.pass_all(spans);
        }
        Frame::Events(events, self.tell())
    }

    fn pass_all(&mut self, spans: &[Span]) {
        spans.iter().for_each(|span| self.positions[usize::from(span.lane)] = span.last);
    }

    /// The cursor for what is passed, which the reader is about to know.
    fn tell(&mut self) -> Cursor {
        self.told.clone_from(&self.positions);
        Cursor::Feed(self.positions.clone())
    }
}
