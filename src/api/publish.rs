//! Publishing: single requests, and streams of requests.

use std::sync::Arc;

use tokio::time::sleep;

use super::{Api, Error};
use crate::{
    access::{self, Caller, Identity, Verb},
    event::{NewEvent, Outcome, Violation},
    ingest::{Ingest, Pending, Settled, Share, WhenFull},
    limits::{ACCESS_POLL_INTERVAL, MAX_REQUEST_BYTES, MAX_REQUEST_EVENTS},
    store::Counters,
};

/// A decoded event, or why it is invalid.
pub(crate) type Decoded = Result<NewEvent, Error>;

/// How a request with invalid or unauthorized events is handled.
#[derive(Debug, Clone, Copy)]
pub enum OnInvalid {
    /// The whole request is rejected. The function returns the path of the event with an index.
    RejectRequest(fn(usize) -> String),
    /// Only these events are rejected.
    RejectEvents,
}

/// The result of one event of a request.
#[derive(Debug, Clone)]
pub enum EventResult {
    /// It is stored, by this request or an earlier one.
    Stored(Outcome),
    /// It is not stored.
    Rejected(Arc<Error>),
}

/// The results of a request.
#[derive(Debug, Default)]
pub struct Published {
    /// One per event, in request order.
    pub results: Vec<EventResult>,
    /// The counters of this request.
    pub counters: Counters,
    /// Number of rejected events.
    pub rejected: i64,
}

impl Api {
    /// Publishes the events of a request, and waits until they are stored. `bytes` is the size of
    /// the message that the events are slices of, or 0.
    pub async fn publish(
        &self,
        caller: &Caller,
        events: Vec<Decoded>,
        bytes: usize,
        on_invalid: OnInvalid,
    ) -> Result<Published, Error> {
        check_size(events.len(), bytes)?;
        let count = events.len();
        let request = Checked::new(events, &caller.identity);
        if let OnInvalid::RejectRequest(path) = on_invalid
            && let Some(error) = request.error(path)
        {
            self.ingest.count_rejected(request.rejected.len());
            return Err(error);
        }
        self.acquire_rate(&caller.identity, count)?;
        request.submit(&self.ingest, caller, bytes, WhenFull::Reject).await?.published().await
    }

    /// Starts a stream of requests.
    pub fn producer(&self, caller: Caller) -> Producer {
        Producer { api: self.clone(), caller, share: Share::default() }
    }
}

/// The producer of a stream of requests. Invalid events are rejected individually. Requests wait
/// for the rate limit and for a full queue, instead of failing.
pub struct Producer {
    api: Api,
    caller: Caller,
    share: Share,
}

impl Producer {
    /// Waits until the stream must end, because its caller loses its access or the server shuts
    /// down.
    pub async fn ended(&mut self) -> Error {
        loop {
            tokio::select! {
                changed = self.caller.identity.changed() => match changed {
                    Ok(()) => (),
                    Err(error) => return error.into(),
                },
                () = self.api.stopping.cancelled() => return Error::shutting_down(),
            }
        }
    }

    /// Queues the events of a request. Cancel safe: nothing is queued if this is dropped.
    pub async fn submit(&mut self, events: Vec<Decoded>, bytes: usize) -> Result<Submitted, Error> {
        self.wait_for_rate(events.len()).await?;
        let request = match check_size(events.len(), bytes) {
            Ok(()) => Checked::new(events, &self.caller.identity),
            Err(error) => Checked::rejected(events.len(), error),
        };
        request.submit(&self.api.ingest, &self.caller, bytes, WhenFull::Wait(&self.share)).await
    }

    async fn wait_for_rate(&mut self, events: usize) -> Result<(), Error> {
        loop {
            self.caller.identity.refresh()?;
            let Err(access::Error::TooFast { wait }) = self.caller.identity.spend(events) else {
                return Ok(());
            };
            tokio::select! {
                () = sleep(wait.min(ACCESS_POLL_INTERVAL)) => (),
                () = self.api.stopping.cancelled() => return Err(Error::shutting_down()),
            }
        }
    }
}

fn check_size(events: usize, bytes: usize) -> Result<(), Error> {
    let fault = if events > MAX_REQUEST_EVENTS {
        format!("has {events} events; the limit is {MAX_REQUEST_EVENTS} per request")
    } else if bytes > MAX_REQUEST_BYTES {
        format!("has {bytes} bytes; the limit is {MAX_REQUEST_BYTES} per request")
    } else {
        return Ok(());
    };
    Err(Error::too_large(Violation::new("events", fault)))
}

/// The events of a request, validated and authorized.
struct Checked {
    valid: Vec<NewEvent>,
    /// The rejected events, ordered by index.
    rejected: Vec<(usize, Arc<Error>)>,
}

impl Checked {
    fn new(events: Vec<Decoded>, identity: &Identity) -> Self {
        let mut checked = Self { valid: Vec::with_capacity(events.len()), rejected: Vec::new() };
        for (index, event) in events.into_iter().enumerate() {
            let permitted =
                event.and_then(|event| match identity.may(Verb::Publish, &event.key.topic) {
                    true => Ok(event),
                    false => Err(access::denied(Verb::Publish, &event.key.topic).into()),
                });
            match permitted {
                Ok(event) => checked.valid.push(event),
                Err(error) => checked.rejected.push((index, Arc::new(error))),
            }
        }
        checked
    }

    /// A request that is rejected as a whole.
    fn rejected(events: usize, error: Error) -> Self {
        let error = Arc::new(error);
        let rejected = (0..events).map(|index| (index, Arc::clone(&error))).collect();
        Self { valid: Vec::new(), rejected }
    }

    /// The error of a request with rejected events: all violations, or else the error of the first
    /// event.
    fn error(&self, path: fn(usize) -> String) -> Option<Error> {
        let (_, first) = self.rejected.first()?;
        let invalid = self.rejected.iter().filter(|(_, error)| !error.violations.is_empty());
        let violations: Vec<Violation> = invalid
            .flat_map(|(index, error)| {
                let path = path(*index);
                error.violations.iter().map(move |violation| {
                    Violation::new(format!("{path}{}", violation.field), &*violation.description)
                })
            })
            .collect();
        match violations.is_empty() {
            true => Some(Error::clone(first)),
            false => Some(Error::invalid(violations)),
        }
    }

    async fn submit(
        self,
        ingest: &Ingest,
        caller: &Caller,
        bytes: usize,
        when_full: WhenFull<'_>,
    ) -> Result<Submitted, Error> {
        let Self { valid, rejected } = self;
        ingest.count_rejected(rejected.len());
        let bytes = if valid.is_empty() { 0 } else { bytes };
        let pending = ingest.submit(valid, bytes, when_full, caller.account()).await?;
        Ok(Submitted { pending, rejected })
    }
}

/// A request whose valid events are queued.
pub struct Submitted {
    pending: Pending,
    rejected: Vec<(usize, Arc<Error>)>,
}

impl Submitted {
    /// Whether some of its events are rejected.
    pub fn has_rejections(&self) -> bool {
        !self.rejected.is_empty()
    }

    /// Waits until its valid events are stored.
    pub async fn published(self) -> Result<Published, Error> {
        let mut stored = self.pending.outcomes().await?.into_iter();
        let mut published = Published {
            results: Vec::with_capacity(stored.len() + self.rejected.len()),
            ..Published::default()
        };
        for (index, error) in self.rejected {
            let before = index - published.results.len();
            stored.by_ref().take(before).for_each(|settled| published.add_settled(settled));
            published.reject(error);
        }
        stored.for_each(|settled| published.add_settled(settled));
        Ok(published)
    }
}

impl Published {
    fn add_settled(&mut self, settled: Settled) {
        match settled {
            Settled::Judged(outcome) => {
                self.counters.add(outcome.verdict);
                self.results.push(EventResult::Stored(outcome));
            }
            Settled::RefusedByStore => self.reject(Arc::new(Error::internal())),
        }
    }

    fn reject(&mut self, error: Arc<Error>) {
        self.rejected += 1;
        self.results.push(EventResult::Rejected(error));
    }
}
