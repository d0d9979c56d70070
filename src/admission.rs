//! Admission control: limits on calls, subscriptions and memory, for all clients together and for each
//! caller, whatever the protocol. The limits of connections and of the queue of events are elsewhere.

use crate::{
    access::CallerKey,
    limits::{
        CALLER_SHARE, LISTING_RESERVED_BYTES, MAX_CALLS, MAX_CONNECTIONS, MAX_LISTING_BYTES,
        MAX_READING_BYTES, MAX_RESPONSES_BYTES, MAX_SCANS, MAX_SUBSCRIBERS, MAX_SUBSCRIPTION_BYTES,
        MAX_UNAUTHENTICATED_CALLS, MAX_WATCHES, RESPONSE_CHUNK_BYTES, RESPONSE_WAIT, SCAN_WAIT,
        SMALL_REQUEST_BYTES,
    },
};

pub(crate) use self::{
    bound::{Bound, Full, Permit},
    outbox::{Closed, Outbox, Unsent, outbox},
    response::{BufferedResponse, Expired, Reservation, chunk},
};

mod bound;
mod outbox;
mod response;

/// The kind of a call. Each kind has a limit of its own, so that unauthenticated clients cannot use up the
/// calls of others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CallKind {
    /// A call of the service, counted by caller.
    Ordinary,
    /// A short call that needs no credentials, counted by connection.
    Unauthenticated,
    /// A stream that needs no credentials, counted by address.
    Watch,
}

/// What is in progress. Clones are handles to the same limits.
#[derive(Debug, Clone)]
pub struct Admission {
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

impl Default for Admission {
    fn default() -> Self {
        let shared = |size| Bound::new(size, size / CALLER_SHARE);
        let unauthenticated = MAX_CONNECTIONS * MAX_UNAUTHENTICATED_CALLS;
        Self {
            calls: shared(MAX_CALLS),
            unauthenticated: Bound::new(unauthenticated, MAX_UNAUTHENTICATED_CALLS),
            watches: shared(MAX_WATCHES),
            subscriptions: shared(MAX_SUBSCRIBERS),
            subscription_memory: shared(MAX_SUBSCRIPTION_BYTES),
            reading: shared(MAX_READING_BYTES),
            listings: shared(MAX_LISTING_BYTES),
            answers: shared(MAX_RESPONSES_BYTES),
            scans: shared(MAX_SCANS),
        }
    }
}

impl Admission {
    /// A permit for one more call.
    pub fn call(&self, kind: CallKind, caller: &CallerKey) -> Result<Permit, Full> {
        let calls = match kind {
            CallKind::Ordinary => &self.calls,
            CallKind::Unauthenticated => &self.unauthenticated,
            CallKind::Watch => &self.watches,
        };
        calls.try_take(caller, 1)
    }

    /// A permit for one more subscription to the feed.
    pub fn subscription(&self, caller: &CallerKey) -> Result<Permit, Full> {
        self.subscriptions.try_take(caller, 1)
    }

    /// A permit to read a request of so many bytes, once there is memory for it. Small requests need none.
    pub async fn reading(&self, caller: &CallerKey, bytes: usize) -> Option<Permit> {
        if bytes <= SMALL_REQUEST_BYTES {
            return None;
        }
        self.reading.take(caller, bytes).await
    }

    /// Reserves memory for the response to a listing or look-up, before anything is read from the store.
    /// Waits for [`RESPONSE_WAIT`] at most.
    pub async fn reserve_response(&self, caller: &CallerKey) -> Result<Reservation, Full> {
        let permit =
            self.listings.take_within(caller, LISTING_RESERVED_BYTES, RESPONSE_WAIT).await?;
        Ok(Reservation::new(permit))
    }

    /// A permit for a response of so many bytes until it is sent, out of its reservation if it has one.
    /// Small responses need none.
    pub fn response(
        &self,
        caller: &CallerKey,
        bytes: usize,
        reserved: Option<Reservation>,
    ) -> Result<Option<Permit>, Full> {
        if bytes <= RESPONSE_CHUNK_BYTES {
            return Ok(None);
        }
        match reserved.and_then(Reservation::into_permit) {
            Some(mut permit) => Ok(permit.split(bytes)),
            None => self.answers.try_take(caller, bytes).map(Some),
        }
    }

    /// The limit on the events that subscriptions hold in memory, in bytes.
    pub fn subscription_memory(&self) -> &Bound {
        &self.subscription_memory
    }

    /// A permit for a listing that reads far more events than it returns. None if there is none within
    /// [`SCAN_WAIT`].
    pub async fn scan(&self, caller: &CallerKey) -> Option<Permit> {
        self.scans.take_within(caller, 1, SCAN_WAIT).await.ok()
    }

    /// Ordinary calls in progress.
    pub fn calls(&self) -> usize {
        self.calls.used()
    }

    /// Bytes of large requests that are being read.
    pub fn reading_bytes(&self) -> usize {
        self.reading.used()
    }

    /// Bytes of large responses that are not sent yet or reserved.
    pub fn answer_bytes(&self) -> usize {
        self.listings.used() + self.answers.used()
    }

    /// Bytes of events that subscriptions hold, beyond what needs no permit.
    pub fn subscription_bytes(&self) -> usize {
        self.subscription_memory.used()
    }
}
