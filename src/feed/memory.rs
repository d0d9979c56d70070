//! Memory of subscriptions: events that were read and not sent yet. A little is free, and more
//! takes permits from a budget in bytes. Without permits, pages are cut to the free amount, and
//! only an event larger than that waits.

use std::sync::Arc;

use crate::{
    access::CallerKey,
    admission::{self, Bound},
    event::Event,
    limits::{FEED_EVENT_OVERHEAD, MAX_NAME_BYTES, MAX_PAYLOAD_BYTES, SUBSCRIPTION_FREE_BYTES},
};

/// Size of the largest event in bytes.
const LARGEST: usize = MAX_PAYLOAD_BYTES + 3 * MAX_NAME_BYTES + FEED_EVENT_OVERHEAD;

/// Permits of a page, released with the last frame that has its events.
pub(super) type Permit = Arc<admission::Permit>;

/// The budget of all subscriptions, and the caller whose share is counted.
#[derive(Debug, Clone)]
struct Budget {
    bound: Bound,
    caller: CallerKey,
}

/// Memory of one subscription.
#[derive(Debug)]
pub(super) struct Memory {
    budget: Budget,
    /// Number of lanes to read.
    lanes: usize,
    /// Permits for the largest event of each lane, held while those are read.
    reserve: Option<admission::Permit>,
}

/// Permits that a frame holds until it is sent.
#[derive(Debug)]
pub struct Held {
    budget: Budget,
    _pages: Vec<Permit>,
    more: Option<admission::Permit>,
}

impl Memory {
    pub(super) fn new(bound: &Bound, caller: &CallerKey, lanes: usize) -> Self {
        let budget = Budget { bound: bound.clone(), caller: caller.clone() };
        Self { budget, lanes, reserve: None }
    }

    /// The caller whose share is counted.
    pub(super) fn caller(&self) -> &CallerKey {
        &self.budget.caller
    }

    /// The number of events of a page that fit, and their permits unless they are free. `None` if
    /// the first one needs a [`Memory::reserve`].
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
                // This program never stores a larger event.
                let (events, kept) = if events == 0 { (1, LARGEST) } else { (events, kept) };
                Some((events, reserve.split(kept).map(Arc::new)))
            }
            None => (events > 0).then_some((events, None)),
        }
    }

    /// Waits for permits for the largest event of each lane. The caller must hold no permits of
    /// unsent pages, or two subscriptions could deadlock.
    pub(super) async fn reserve(&mut self) {
        self.reserve = None;
        let Budget { bound, caller } = &self.budget;
        self.reserve = bound.take(caller, LARGEST * self.lanes).await;
    }

    /// Releases the rest of a reserve.
    pub(super) fn release(&mut self) {
        self.reserve = None;
    }

    /// The permits of a frame with events of these pages.
    pub(super) fn held(&self, pages: Vec<Permit>) -> Held {
        Held { budget: self.budget.clone(), _pages: pages, more: None }
    }
}

impl Held {
    /// Takes permits for bytes that the frame needs in another form, beyond those of its events.
    /// Returns the number of bytes that are covered.
    pub fn grow(&mut self, bytes: usize) -> usize {
        if bytes <= SUBSCRIPTION_FREE_BYTES {
            return bytes;
        }
        self.more = self.budget.try_take(bytes);
        if self.more.is_some() { bytes } else { SUBSCRIPTION_FREE_BYTES }
    }

    /// Releases the permits beyond this many bytes.
    pub fn shrink(&mut self, bytes: usize) {
        self.more = self.more.take().and_then(|mut more| more.split(bytes));
    }
}

impl Budget {
    fn try_take(&self, bytes: usize) -> Option<admission::Permit> {
        self.bound.try_take(&self.caller, bytes).ok()
    }
}

/// Bytes of an event on its way to a subscriber.
fn bytes(event: &Event) -> usize {
    let Event { key, source, payload, .. } = event;
    let names = key.topic.len() + key.event_id.len() + source.len();
    names + payload.as_str().len() + FEED_EVENT_OVERHEAD
}
