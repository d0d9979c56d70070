//! A subscription: a subscriber's position in each lane, and what to send next. The feed says how
//! far it can read.

use std::{collections::VecDeque, sync::Arc};

use tokio::{
    sync::watch,
    time::{Instant, sleep_until},
};
use tokio_util::task::task_tracker::TaskTrackerToken;
use tracing::warn;

use super::{
    Error, Feed, Heads,
    memory::{Held, Memory, Permit},
};
use crate::{
    access::CallerKey,
    admission,
    cursor::Cursor,
    event::{Event, Position},
    limits::{
        CHECKPOINT_INTERVAL, FEED_READ_BYTES, FEED_SCAN_EVENTS, MAX_FEED_READ_EVENTS,
        MAX_PAGE_BYTES, MIN_FEED_READ_EVENTS,
    },
    store::{self, FeedQuery, Mark, Page, Place, lane_of},
};

/// A subscriber's position in the feed.
pub struct Subscription {
    feed: Feed,
    heads: watch::Receiver<Heads>,
    /// Restore count of the feed when the position was last checked.
    restored: u64,
    topics: Arc<[String]>,
    lanes: Vec<LaneReader>,
    /// The last cursor that was sent.
    told: Cursor,
    /// Whether the subscriber has not been told yet that it caught up.
    is_behind: bool,
    memory: Memory,
    /// Whether the next event needs permits that must be waited for.
    is_short: bool,
    _permit: admission::Permit,
    /// Must be dropped last.
    _open: TaskTrackerToken,
}

/// A subscription's position in one lane.
#[derive(Debug)]
struct LaneReader {
    /// Whether the lane has topics of the subscription.
    is_in_scope: bool,
    /// The last event that was read.
    read: Mark,
    /// Events that were read and not sent.
    waiting: VecDeque<Event>,
    /// Permits for those events, unless they are free.
    permit: Option<Permit>,
    /// The last event that was sent or skipped.
    passed: Mark,
    /// Number of events per read.
    limit: usize,
}

/// What to send next.
#[derive(Debug)]
pub enum Frame {
    /// Events, each with the cursor after it; the cursor after all of them; and the permits to hold
    /// until they are sent.
    Events(Vec<(Event, Cursor)>, Cursor, Held),
    /// A position without events: nothing matched.
    Checkpoint(Cursor),
    /// There are no more events for now.
    CaughtUp(Cursor),
}

impl Subscription {
    /// A subscription that starts after `positions`.
    pub(super) fn begin(
        feed: &Feed,
        heads: watch::Receiver<Heads>,
        restored: u64,
        topics: Arc<[String]>,
        positions: Vec<Mark>,
        caller: &CallerKey,
        permit: admission::Permit,
    ) -> Self {
        let lanes = feed.store.lanes();
        let is_in_scope =
            |lane| topics.is_empty() || topics.iter().any(|topic| lane_of(topic, lanes) == lane);
        let told = Cursor::Feed(positions.clone());
        let lanes = (0..).zip(positions);
        let lanes: Vec<_> =
            lanes.map(|(lane, at)| LaneReader::new(at, is_in_scope(lane))).collect();
        let in_scope = lanes.iter().filter(|lane| lane.is_in_scope).count();
        Self {
            feed: feed.clone(),
            heads,
            restored,
            topics,
            lanes,
            told,
            is_behind: true,
            memory: Memory::new(feed.admission.subscription_memory(), caller, in_scope),
            is_short: false,
            _permit: permit,
            _open: feed.open.token(),
        }
    }

    /// Whether the next event needs permits that must be waited for. Then call
    /// [`Subscription::next`] only after the subscriber has received everything: one that does not
    /// read must not block others.
    pub fn is_short(&self) -> bool {
        self.is_short
    }

    /// Waits for the next frame. Cancel safe.
    pub async fn next(&mut self) -> Result<Frame, Error> {
        let checkpoint_due = Instant::now() + CHECKPOINT_INTERVAL;
        if self.is_short {
            self.memory.reserve().await;
            self.is_short = false;
        }
        loop {
            let Heads { marks: heads, restored } = self.heads.borrow_and_update().clone();
            if restored != self.restored {
                // Events read before the ones that are missing are still valid.
                let read: Vec<Mark> = self.lanes.iter().map(|lane| lane.read).collect();
                self.feed.check(&read).await?;
                self.restored = restored;
            }
            let Some(is_read) = self.fill(&heads).await? else {
                // Shows whether the subscriber reads.
                return Ok(Frame::Checkpoint(self.tell()));
            };
            let (events, held) = self.merge(&heads);
            if !events.is_empty() {
                return Ok(Frame::Events(events, self.tell(), held));
            }
            if is_read {
                // Nothing matched so far.
                if Instant::now() >= checkpoint_due {
                    return Ok(Frame::Checkpoint(self.tell()));
                }
                continue;
            }
            for (lane, head) in self.lanes.iter_mut().zip(heads) {
                // Lanes without topics of the subscription are skipped.
                if lane.read.seq < head.seq {
                    lane.read = head;
                }
                lane.passed = lane.read;
            }
            if std::mem::replace(&mut self.is_behind, false) {
                return Ok(Frame::CaughtUp(self.tell()));
            }
            tokio::select! {
                // The sender lives as long as its handle in `self`.
                _ = self.heads.changed() => (),
                () = sleep_until(checkpoint_due), if self.cursor() != self.told => {
                    return Ok(Frame::Checkpoint(self.tell()));
                }
            }
        }
    }

    /// Reads from each lane without waiting events. Returns whether there was anything to read, or
    /// `None` if an event has no permits, in which case no event is waiting.
    async fn fill(&mut self, heads: &[Mark]) -> Result<Option<bool>, store::Error> {
        let mut is_read = false;
        for (number, (lane, &head)) in (0..).zip(self.lanes.iter_mut().zip(heads)) {
            if !lane.is_in_scope || !lane.waiting.is_empty() || lane.read.seq >= head.seq {
                continue;
            }
            is_read = true;
            // Numbers have no gaps, so this is the number of events if all topics are read.
            let numbers = match self.topics.is_empty() {
                true => lane.limit as i64,
                false => FEED_SCAN_EVENTS,
            };
            let last = head.seq.min(lane.read.seq + numbers);
            let query = FeedQuery {
                lane: number,
                after: lane.read,
                last,
                topics: Arc::clone(&self.topics),
                limit: lane.limit,
                max_bytes: FEED_READ_BYTES,
            };
            let first = lane.read.seq + 1;
            let _turn = self.feed.reads.take(self.memory.caller(), 1).await;
            let mut page = self.feed.store.read(query).await.inspect_err(|error| {
                let error = store::chain(error);
                warn!(lane = number, first, last, error, "feed read failed");
            })?;
            let Some((kept, permit)) = self.memory.keep(&page.events) else {
                self.is_short = true;
                self.lanes.iter_mut().for_each(LaneReader::forget);
                break;
            };
            page.more |= kept < page.events.len();
            page.events.truncate(kept);
            let end = match page.events.last() {
                Some(event) if page.more || event.position.seq == last => Mark::from(event),
                // The last numbers have no matching event, so their mark is looked up.
                _ => {
                    let end = match last == head.seq {
                        true => head,
                        false => self.feed.mark_at(Position { lane: number, seq: last }).await?,
                    };
                    if !self.feed.holds(number, head).await? {
                        // The database was restored since the heads were polled.
                        self.feed.ask().await?;
                        return Ok(Some(true));
                    }
                    end
                }
            };
            lane.take(page, end, permit);
            self.is_behind |= lane.read.seq < head.seq;
        }
        self.memory.release();
        Ok((!self.is_short).then_some(is_read))
    }

    /// Merges the waiting events by time into one frame, while each lane has its next event in
    /// memory.
    fn merge(&mut self, heads: &[Mark]) -> (Vec<(Event, Cursor)>, Held) {
        let mut events = Vec::new();
        let mut permits: Vec<Permit> = Vec::new();
        let mut bytes = 0;
        let has_no_say = |(lane, head): (&LaneReader, &Mark)| {
            lane.is_in_scope && lane.waiting.is_empty() && lane.read.seq < head.seq
        };
        while events.len() < MAX_FEED_READ_EVENTS && !self.lanes.iter().zip(heads).any(has_no_say) {
            let waiting = self.lanes.iter_mut().filter(|lane| !lane.waiting.is_empty());
            let next = waiting.min_by_key(|lane| lane.waiting.front().map(Place::from));
            let Some(lane) = next else { break };
            let size = lane.waiting.front().map_or(0, |event| event.payload.as_str().len());
            if bytes + size > MAX_PAGE_BYTES && !events.is_empty() {
                break;
            }
            bytes += size;
            let is_new = |permit: &&Permit| !permits.iter().any(|held| Arc::ptr_eq(held, permit));
            permits.extend(lane.permit.as_ref().filter(is_new).cloned());
            let Some(event) = lane.give() else { break };
            events.push((event, self.cursor()));
        }
        (events, self.memory.held(permits))
    }

    /// The cursor after the events that were sent or skipped.
    fn cursor(&self) -> Cursor {
        Cursor::Feed(self.lanes.iter().map(|lane| lane.passed).collect())
    }

    /// The same, recorded as sent.
    fn tell(&mut self) -> Cursor {
        self.told = self.cursor();
        self.told.clone()
    }
}

impl LaneReader {
    fn new(position: Mark, is_in_scope: bool) -> Self {
        let limit = MIN_FEED_READ_EVENTS;
        let (waiting, permit) = (VecDeque::new(), None);
        Self { is_in_scope, read: position, waiting, permit, passed: position, limit }
    }

    /// Adds a page that was read up to `end`, with the permits for it.
    fn take(&mut self, page: Page, end: Mark, permit: Option<Permit>) {
        let is_cut = page.more && page.events.len() < self.limit;
        // What the store sends beyond the bytes asked for is wasted, so few large events are read
        // at once.
        self.limit = match is_cut {
            true => page.events.len().max(1),
            false => (self.limit * 4).min(MAX_FEED_READ_EVENTS),
        };
        self.read = end;
        self.waiting = page.events.into();
        self.permit = permit;
        if self.waiting.is_empty() {
            self.passed = self.read;
        }
    }

    /// Drops the waiting events, to read them again.
    fn forget(&mut self) {
        if !self.waiting.is_empty() {
            self.waiting = VecDeque::new();
            self.read = self.passed;
        }
        self.permit = None;
    }

    /// Takes the first waiting event, and skips to the next one.
    fn give(&mut self) -> Option<Event> {
        let event = self.waiting.pop_front()?;
        self.passed = if self.waiting.is_empty() { self.read } else { Mark::from(&event) };
        if self.waiting.is_empty() {
            self.waiting = VecDeque::new();
            self.permit = None;
        }
        Some(event)
    }
}
