//! How much the service takes on at once, over all connections and by whatever way it is asked, and how
//! much of that one caller may use: calls, subscriptions, large requests that are being read, and large
//! answers that wait to be taken.

use crate::{
    access::CallerKey,
    limits::{
        ANSWER_BYTES, ANSWER_WAIT, CALLER_SHARE, CALLS, CONNECTIONS, LISTING_BYTES,
        LISTING_RESERVED_BYTES, READING_BYTES, SCAN_WAIT, SCANS, SMALL_ANSWER_BYTES,
        SMALL_REQUEST_BYTES, SUBSCRIBERS, SUBSCRIPTION_BYTES, UNAUTHENTICATED_CALLS, WATCHES,
    },
};

pub use self::{
    answer::{Expired, LargeAnswer, Reserved, portion},
    bound::{Bound, Full, Permit},
    outbox::{Closed, Outbox, Outgoing, Unsent, outbox},
};

mod answer;
mod bound;
mod outbox;

/// What kind of call somebody makes. Each has a bound of its own, so that those who need not say who
/// they are take nothing from those who do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Asks the service for what it is there for.
    Ordinary,
    /// Comes without credentials where they are needed, or needs none. Counted per connection.
    Unauthenticated,
    /// Goes on until the caller ends it, and needs no credentials. Counted per address.
    Watch,
}

/// What is in progress. Clones are handles to the same one.
#[derive(Debug, Clone)]
pub struct Load {
    calls: Bound,
    unauthenticated: Bound,
    watches: Bound,
    subscriptions: Bound,
    subscription_memory: Bound,
    reading: Bound,
    listings: Bound,
    answers: Bound,
    scans: Bound,
}

impl Default for Load {
    fn default() -> Self {
        let shared = |size| Bound::new(size, size / CALLER_SHARE);
        let unauthenticated = CONNECTIONS * UNAUTHENTICATED_CALLS;
        Self {
            calls: shared(CALLS),
            unauthenticated: Bound::new(unauthenticated, UNAUTHENTICATED_CALLS),
            watches: shared(WATCHES),
            subscriptions: shared(SUBSCRIBERS),
            subscription_memory: shared(SUBSCRIPTION_BYTES),
            reading: shared(READING_BYTES),
            listings: shared(LISTING_BYTES),
            answers: shared(ANSWER_BYTES),
            scans: shared(SCANS),
        }
    }
}

impl Load {
    /// A permit for one more call.
    pub fn call(&self, kind: Kind, caller: &CallerKey) -> Result<Permit, Full> {
        let calls = match kind {
            Kind::Ordinary => &self.calls,
            Kind::Unauthenticated => &self.unauthenticated,
            Kind::Watch => &self.watches,
        };
        calls.try_take(caller, 1)
    }

    /// A permit for one more subscription to the feed.
    pub fn subscription(&self, caller: &CallerKey) -> Result<Permit, Full> {
        self.subscriptions.try_take(caller, 1)
    }

    /// A permit to read a request of so many bytes, once they are free. Small requests need none.
    pub async fn reading(&self, caller: &CallerKey, bytes: usize) -> Option<Permit> {
        if bytes <= SMALL_REQUEST_BYTES {
            return None;
        }
        self.reading.take(caller, bytes).await
    }

    /// A permit for the answer to a listing or look-up, before it is read from the store: what its caller may
    /// not leave untaken is not read. Waits for [`ANSWER_WAIT`] at most.
    pub async fn listing(&self, caller: &CallerKey) -> Result<Reserved, Full> {
        let permit = self.listings.take_within(caller, LISTING_RESERVED_BYTES, ANSWER_WAIT).await?;
        Ok(Reserved::new(permit))
    }

    /// A permit for an answer of so many bytes until it is taken, out of what was reserved for it. Small
    /// answers need none.
    pub fn answer(
        &self,
        caller: &CallerKey,
        bytes: usize,
        reserved: Option<Reserved>,
    ) -> Result<Option<Permit>, Full> {
        if bytes <= SMALL_ANSWER_BYTES {
            return Ok(None);
        }
        match reserved.and_then(Reserved::into_permit) {
            Some(mut permit) => Ok(permit.split(bytes)),
            None => self.answers.try_take(caller, bytes).map(Some),
        }
    }

    /// Where subscriptions take permits for the events that they keep in memory, in bytes.
    pub fn subscription_memory(&self) -> &Bound {
        &self.subscription_memory
    }

    /// A permit for a listing that reads far more events than it returns. None if it is not its turn within
    /// [`SCAN_WAIT`].
    pub async fn scan(&self, caller: &CallerKey) -> Option<Permit> {
        self.scans.take_within(caller, 1, SCAN_WAIT).await.ok()
    }

    /// How many ordinary calls are in progress.
    pub fn calls(&self) -> usize {
        self.calls.used()
    }

    /// Bytes of large requests that are being read.
    pub fn reading_bytes(&self) -> usize {
        self.reading.used()
    }

    /// Bytes of large answers that are not taken yet, and that listings and look-ups have reserved.
    pub fn answer_bytes(&self) -> usize {
        self.listings.used() + self.answers.used()
    }

    /// Bytes of events that subscriptions keep in memory, beyond what needs no permits.
    pub fn subscription_bytes(&self) -> usize {
        self.subscription_memory.used()
    }
}
