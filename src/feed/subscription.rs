//! A subscription: one reader's place in the feed, lane by lane, and what it brings next. How far one
//! can read is told by the feed.

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
    cursor::Cursor,
    event::{Event, Position},
    limits::{
        CHECKPOINT_INTERVAL, FEED_READ_BYTES, FEED_READ_EVENTS, FEED_SCAN_EVENTS, MAX_PAGE_BYTES,
    },
    load,
    store::{self, FeedQuery, Mark, Page, Place, lane_of},
};

/// One reader's place in the feed.
pub struct Subscription {
    feed: Feed,
    heads: watch::Receiver<Heads>,
    /// How often the store had been restored when the place was found to be in it.
    restored: u64,
    topics: Arc<[String]>,
    lanes: Vec<LaneReader>,
    /// The cursor that the reader has.
    told: Cursor,
    /// Whether the reader was not yet told that it has everything.
    is_behind: bool,
    memory: Memory,
    /// Whether the next event needs permits that must be waited for.
    is_short: bool,
    _permit: load::Permit,
    /// Let go of last.
    _open: TaskTrackerToken,
}

/// A subscription's place in one lane.
#[derive(Debug)]
struct LaneReader {
    /// Whether topics of the subscription are in this lane.
    is_in_scope: bool,
    /// The last event that was read.
    read: Mark,
    /// What was read and not given out.
    waiting: VecDeque<Event>,
    /// Permits for what was read, unless it is little.
    permit: Option<Permit>,
    /// The last event that was given out or passed.
    passed: Mark,
    /// Events to read at once.
    limit: usize,
}

/// What a subscription brings next.
#[derive(Debug)]
pub enum Frame {
    /// Events, each with the cursor behind it, the cursor behind all of them, and what is to be kept until
    /// the connection has taken them.
    Events(Vec<(Event, Cursor)>, Cursor, Held),
    /// Nothing but the place: it moved although nothing matched.
    Checkpoint(Cursor),
    /// There is nothing more for now.
    CaughtUp(Cursor),
}

impl Subscription {
    /// A reader who has everything up to `positions`.
    pub(super) fn begin(
        feed: &Feed,
        heads: watch::Receiver<Heads>,
        restored: u64,
        topics: Arc<[String]>,
        positions: Vec<Mark>,
        caller: &CallerKey,
        permit: load::Permit,
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
            memory: Memory::new(feed.load.subscription_memory(), caller, in_scope),
            is_short: false,
            _permit: permit,
            _open: feed.open.token(),
        }
    }

    /// Whether permits for memory are waited for before the next event is read. Then
    /// [`Subscription::next`] is to be called once the subscriber has taken all that it was sent: those that
    /// do not read must not be in front of others.
    pub fn is_short(&self) -> bool {
        self.is_short
    }

    /// Waits for what comes next. May be dropped while waiting: nothing is lost.
    pub async fn next(&mut self) -> Result<Frame, Error> {
        let checkpoint_due = Instant::now() + CHECKPOINT_INTERVAL;
        if self.is_short {
            self.memory.reserve().await;
            self.is_short = false;
        }
        loop {
            let Heads { marks: heads, restored } = self.heads.borrow_and_update().clone();
            if restored != self.restored {
                // What was read before the events that are gone is still there.
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
                // Lanes out of scope are passed without being read.
                if lane.read.seq < head.seq {
                    lane.read = head;
                }
                lane.passed = lane.read;
            }
            if std::mem::replace(&mut self.is_behind, false) {
                #[cfg(feature = "planted-bugs")]
                if crate::planted::is(crate::planted::Bug::BroadcastOnly) {
                    let live = self.lanes.iter_mut().zip(self.feed.ask().await?.marks);
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

    /// Reads on in each lane of which nothing waits. Says whether there was anything to read; None if there
    /// are no permits for an event, and then nothing waits.
    async fn fill(&mut self, heads: &[Mark]) -> Result<Option<bool>, store::Error> {
        let mut is_read = false;
        for (number, (lane, &head)) in (0..).zip(self.lanes.iter_mut().zip(heads)) {
            if !lane.is_in_scope || !lane.waiting.is_empty() || lane.read.seq >= head.seq {
                continue;
            }
            is_read = true;
            // Numbers have no gaps, so without topics this is how many events there are.
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
                // The last numbers have nothing to say, so they are looked at.
                _ => {
                    let end = match last == head.seq {
                        true => head,
                        false => self.feed.mark_at(Position { lane: number, seq: last }).await?,
                    };
                    if !self.feed.holds(number, head).await? {
                        // The store was restored since the heads were asked for.
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

    /// Gives out what waits in the order of time, as long as every lane has its say: a frame of it.
    fn merge(&mut self, heads: &[Mark]) -> (Vec<(Event, Cursor)>, Held) {
        let mut events = Vec::new();
        let mut permits: Vec<Permit> = Vec::new();
        let mut bytes = 0;
        let has_no_say = |(lane, head): (&LaneReader, &Mark)| {
            lane.is_in_scope && lane.waiting.is_empty() && lane.read.seq < head.seq
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
            let is_new = |permit: &&Permit| !permits.iter().any(|held| Arc::ptr_eq(held, permit));
            permits.extend(lane.permit.as_ref().filter(is_new).cloned());
            let Some(event) = lane.give() else { break };
            events.push((event, self.cursor()));
        }
        (events, self.memory.held(permits))
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
    fn new(position: Mark, is_in_scope: bool) -> Self {
        let (limit, _) = FEED_READ_EVENTS;
        let (waiting, permit) = (VecDeque::new(), None);
        Self { is_in_scope, read: position, waiting, permit, passed: position, limit }
    }

    /// Takes what was read up to `end`, with permits for what was kept of it.
    fn take(&mut self, page: Page, end: Mark, permit: Option<Permit>) {
        let is_cut = page.more && page.events.len() < self.limit;
        // What the store sends beyond the bytes asked for is wasted, so ask for few large events.
        self.limit = match is_cut {
            true => page.events.len().max(1),
            false => (self.limit * 4).min(FEED_READ_EVENTS.1),
        };
        self.read = end;
        self.waiting = page.events.into();
        self.permit = permit;
        if self.waiting.is_empty() {
            self.passed = self.read;
        }
    }

    /// Drops what waits, which is read again.
    fn forget(&mut self) {
        if !self.waiting.is_empty() {
            self.waiting = VecDeque::new();
            self.read = self.passed;
        }
        self.permit = None;
    }

    /// Gives out the first of what waits, and passes what follows up to the next one.
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
