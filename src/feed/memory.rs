//! What subscriptions keep in memory: what was read for them, until their connections have taken it. A
//! little is free. More takes permits of a budget, in bytes; while there are none, pages are cut to what
//! is free, and only an event that is larger than that is waited for.

use std::sync::Arc;

use crate::{
    access::CallerKey,
    event::Event,
    limits::{FEED_EVENT_OVERHEAD, MAX_NAME_BYTES, MAX_PAYLOAD_BYTES, SUBSCRIPTION_FREE_BYTES},
    load::{self, Bound},
};

/// Bytes of the largest event.
const LARGEST: usize = MAX_PAYLOAD_BYTES + 3 * MAX_NAME_BYTES + FEED_EVENT_OVERHEAD;

/// Permits for a page. Dropped with the last frame that has events of it.
pub(super) type Permit = Arc<load::Permit>;

/// The bytes of all subscriptions, and whose share is counted.
#[derive(Debug, Clone)]
struct Budget {
    bound: Bound,
    caller: CallerKey,
}

/// What one subscription may keep.
#[derive(Debug)]
pub(super) struct Memory {
    budget: Budget,
    /// Lanes that it reads.
    lanes: usize,
    /// For the largest event of each lane, while they are read.
    reserve: Option<load::Permit>,
}

/// What a frame holds of the budget until its connection has taken it.
#[derive(Debug)]
pub struct Held {
    budget: Budget,
    _pages: Vec<Permit>,
    more: Option<load::Permit>,
}

impl Memory {
    pub(super) fn new(bound: &Bound, caller: &CallerKey, lanes: usize) -> Self {
        let budget = Budget { bound: bound.clone(), caller: caller.clone() };
        Self { budget, lanes, reserve: None }
    }

    /// Whose share is counted.
    pub(super) fn caller(&self) -> &CallerKey {
        &self.budget.caller
    }

    /// How many events of a page can be kept, and their permits unless they are free. None if the first
    /// one needs what [`Memory::reserve`] waits for.
    pub(super) fn keep(&mut self, page: &[Event]) -> Option<(usize, Option<Permit>)> {
        let free = SUBSCRIPTION_FREE_BYTES / self.lanes.max(1);
        let all = page.iter().map(bytes).sum();
        if all <= free {
            return Some((page.len(), None));
        }
        if self.reserve.is_none()
            && let Some(permit) = self.budget.try_take(all)
        {
            return Some((page.len(), Some(Arc::new(permit))));
        }
        let most = if self.reserve.is_some() { LARGEST } else { free };
        let ends = page.iter().scan(0, |end, event| {
            *end += bytes(event);
            Some(*end)
        });
        let (mut events, mut kept) = (0, 0);
        for end in ends.take_while(|end| *end <= most) {
            (events, kept) = (events + 1, end);
        }
        match &mut self.reserve {
            Some(reserve) => {
                // One that is larger was not stored by this program.
                let (events, kept) = if events == 0 { (1, LARGEST) } else { (events, kept) };
                Some((events, reserve.split(kept).map(Arc::new)))
            }
            None => (events > 0).then_some((events, None)),
        }
    }

    /// Waits for permits for the largest event of each lane. Whoever waits must hold none for pages that
    /// are not sent: two who wait for each other would wait for ever.
    pub(super) async fn reserve(&mut self) {
        self.reserve = None;
        let Budget { bound, caller } = &self.budget;
        self.reserve = bound.take(caller, LARGEST * self.lanes).await;
    }

    /// Gives back what is left of a reserve.
    pub(super) fn release(&mut self) {
        self.reserve = None;
    }

    /// What a frame with events of these pages holds.
    pub(super) fn held(&self, pages: Vec<Permit>) -> Held {
        Held { budget: self.budget.clone(), _pages: pages, more: None }
    }
}

impl Held {
    /// Takes permits for bytes that the frame has in another form beyond those of its events. Returns for
    /// how many there is memory.
    pub fn grow(&mut self, bytes: usize) -> usize {
        if bytes <= SUBSCRIPTION_FREE_BYTES {
            return bytes;
        }
        self.more = self.budget.try_take(bytes);
        if self.more.is_some() { bytes } else { SUBSCRIPTION_FREE_BYTES }
    }

    /// Gives back what was taken for more than so many bytes.
    pub fn shrink(&mut self, bytes: usize) {
        self.more = self.more.take().and_then(|mut more| more.split(bytes));
    }
}

impl Budget {
    fn try_take(&self, bytes: usize) -> Option<load::Permit> {
        self.bound.try_take(&self.caller, bytes).ok()
    }
}

/// Bytes of an event on its way to a subscriber.
fn bytes(event: &Event) -> usize {
    let Event { key, source, payload, .. } = event;
    let names = key.topic.len() + key.event_id.len() + source.len();
    names + payload.as_str().len() + FEED_EVENT_OVERHEAD
}
