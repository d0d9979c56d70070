//! Publish and PublishStream.

use std::{pin::pin, sync::Arc};

use prost::Message;
use tokio::{sync::mpsc, time::sleep};
use tokio_stream::{StreamExt, wrappers::ReceiverStream};
use tokio_util::sync::CancellationToken;
use tonic::{Status, Streaming, codegen::BoxStream};
use tracing::Instrument;

use super::{convert, status};
use crate::{
    access::{self, Account, CallerKey, Identity, Verb},
    event::{NewEvent, Outcome, Verdict, Violation},
    ingest::{Admission, Ingest, Pending, Share},
    limits::{
        ACCESS_POLL_INTERVAL, MAX_REQUEST_BYTES, MAX_REQUEST_EVENTS, MAX_REQUEST_ID_BYTES,
        STREAM_IDLE_TIMEOUT, STREAM_REQUESTS_IN_FLIGHT,
    },
    proto::{
        incoming::{Event, PublishRequest, PublishStreamRequest},
        timestamp,
        v1::{PublishResponse, PublishResult, PublishStatus, PublishStreamResponse},
    },
    service::Service,
};

pub(super) async fn unary(
    service: &Service,
    caller: &Identity,
    key: CallerKey,
    request: PublishRequest,
) -> Result<PublishResponse, Status> {
    if request.events.is_empty() {
        return Err(status::invalid(&[Violation::new("events", "must not be empty")]));
    }
    let bytes = request.encoded_len();
    check_size(request.events.len(), bytes).map_err(status::too_large)?;

    let allow_partial = request.allow_partial;
    let events = request.events.len();
    let checked = Checked::of(request.events, caller);
    if !allow_partial && !checked.invalid.is_empty() {
        service.ingest.count_rejected(checked.invalid.len());
        return Err(checked.refusal());
    }
    service.spend(caller, events).map_err(status::access)?;
    let account = caller.account(key);
    let in_flight = checked.submit(&service.ingest, bytes, Admission::Refuse, account).await?;
    in_flight.response().await
}

/// Answers requests in their order, reading ahead of the commits as far as the queue allows.
pub(super) fn stream(
    service: &Service,
    caller: Identity,
    key: CallerKey,
    requests: Streaming<PublishStreamRequest>,
) -> BoxStream<PublishStreamResponse> {
    let (in_flight, responses) = mpsc::channel(STREAM_REQUESTS_IN_FLIGHT);
    let Service { ingest, stopping, .. } = service.clone();
    let producer = Producer { ingest, share: Share::default(), caller, key, stopping };
    let reading = tokio::spawn(producer.read(requests, in_flight).in_current_span());
    let responses = ReceiverStream::new(responses).then(|request: Result<_, Status>| async {
        let (request_id, in_flight): (String, InFlight) = request?;
        let response = in_flight.response().await?;
        Ok(stream_response(request_id, response))
    });
    // A stream may end well only if it was read to its end.
    let end = tokio_stream::once(reading).then(|reading| reading);
    Box::pin(responses.chain(end.filter_map(|end| end.err().map(|_| Err(status::internal())))))
}

/// Where requests go that wait for their commit, in their order.
type InFlightSender = mpsc::Sender<Result<(String, InFlight), Status>>;

/// Who sends a stream, and where its events go.
struct Producer {
    ingest: Ingest,
    share: Share,
    caller: Identity,
    key: CallerKey,
    stopping: CancellationToken,
}

impl Producer {
    /// Reads a stream until it ends, the service stops, or the caller is gone or not known any more.
    /// What was submitted until then is stored and answered.
    async fn read(
        mut self,
        mut requests: Streaming<PublishStreamRequest>,
        in_flight: InFlightSender,
    ) {
        // No slot, no reading: this is how a full queue reaches the producer.
        while let Ok(slot) = in_flight.reserve().await {
            let submitted = match self.next(&mut requests, &in_flight).await {
                Ok(Some(request)) => tokio::select! {
                    submitted = self.submit(request) => submitted,
                    () = in_flight.closed() => return,
                },
                Ok(None) => return,
                Err(status) => Err(status),
            };
            // What is wrong with events takes more memory than the events did, so it waits alone.
            if submitted.as_ref().is_ok_and(|(_, request)| !request.invalid.is_empty())
                && in_flight.reserve_many(STREAM_REQUESTS_IN_FLIGHT - 1).await.is_err()
            {
                return;
            }
            let failed = submitted.is_err();
            slot.send(submitted);
            if failed {
                return;
            }
        }
    }

    /// Waits for a request, and for the rate of the caller to allow it. None if there is none to come, or
    /// if nobody waits for the answer any more.
    async fn next(
        &mut self,
        requests: &mut Streaming<PublishStreamRequest>,
        in_flight: &InFlightSender,
    ) -> Result<Option<PublishStreamRequest>, Status> {
        let mut idle = pin!(sleep(STREAM_IDLE_TIMEOUT));
        let request = loop {
            tokio::select! {
                request = requests.message() => break request?,
                changed = self.caller.changed() => changed.map_err(status::access)?,
                () = self.stopping.cancelled() => return Err(status::stopping()),
                // The call has ended although its caller would go on, as when its time is over.
                () = in_flight.closed() => return Ok(None),
                () = &mut idle => return Err(status::stream_idle()),
            }
        };
        let Some(request) = request else { return Ok(None) };
        loop {
            self.caller.refresh().map_err(status::access)?;
            let Err(access::Error::TooFast { wait }) = self.caller.spend(request.events.len())
            else {
                return Ok(Some(request));
            };
            tokio::select! {
                () = sleep(wait.min(ACCESS_POLL_INTERVAL)) => (),
                () = in_flight.closed() => return Ok(None),
                () = self.stopping.cancelled() => return Err(status::stopping()),
            }
        }
    }

    async fn submit(&self, request: PublishStreamRequest) -> Result<(String, InFlight), Status> {
        let (events, bytes) = (request.events.len(), request.encoded_len());
        let mut request_id = request.request_id;
        let fault = match check_id(&mut request_id) {
            Err(violation) => Err(status::invalid(&[violation])),
            Ok(()) => check_size(events, bytes).map_err(status::too_large),
        };
        let checked = match fault {
            Ok(()) => Checked::of(request.events, &self.caller),
            Err(status) => Checked::none_of(events, &status),
        };
        let admission = Admission::Wait(&self.share);
        let account = self.caller.account(self.key.clone());
        let in_flight = checked.submit(&self.ingest, bytes, admission, account).await?;
        Ok((request_id, in_flight))
    }
}

/// Fails if a request's id is too long, of which only the beginning is echoed.
fn check_id(request_id: &mut String) -> Result<(), Violation> {
    if request_id.len() <= MAX_REQUEST_ID_BYTES {
        return Ok(());
    }
    let fault = format!(
        "has {} bytes; at most {MAX_REQUEST_ID_BYTES} are taken, and so many are echoed",
        request_id.len()
    );
    request_id.truncate(request_id.floor_char_boundary(MAX_REQUEST_ID_BYTES));
    request_id.shrink_to_fit();
    Err(Violation::new("request_id", fault))
}

fn stream_response(request_id: String, response: PublishResponse) -> PublishStreamResponse {
    let PublishResponse {
        results,
        received,
        unique_processed,
        duplicate_dropped,
        conflicts,
        rejected,
    } = response;
    PublishStreamResponse {
        results,
        received,
        unique_processed,
        duplicate_dropped,
        conflicts,
        rejected,
        request_id,
    }
}

fn check_size(events: usize, bytes: usize) -> Result<(), Violation> {
    if events > MAX_REQUEST_EVENTS {
        let fault = format!("has {events} events; at most {MAX_REQUEST_EVENTS} are taken");
        return Err(Violation::new("events", fault));
    }
    if bytes > MAX_REQUEST_BYTES {
        let fault = format!("take {bytes} bytes; at most {MAX_REQUEST_BYTES} are taken at once");
        return Err(Violation::new("events", fault));
    }
    Ok(())
}

/// The events of a request, told apart.
struct Checked {
    valid: Vec<NewEvent>,
    /// The others by index, in order.
    invalid: Vec<(usize, Invalid)>,
}

/// What is wrong with an event: its own faults, that nobody let its sender send it, or a fault of the
/// whole request.
enum Invalid {
    Event(Vec<Violation>),
    Denied(access::Error),
    Request(Arc<tonic_types::Status>),
}

impl Checked {
    fn of(events: Vec<Event>, caller: &Identity) -> Self {
        let mut checked = Self { valid: Vec::with_capacity(events.len()), invalid: Vec::new() };
        for (index, event) in events.into_iter().enumerate() {
            match convert::new_event(event) {
                Ok(event) if caller.may(Verb::Publish, &event.key.topic) => {
                    checked.valid.push(event);
                }
                Ok(event) => {
                    let denied = access::denied(Verb::Publish, &event.key.topic);
                    checked.invalid.push((index, Invalid::Denied(denied)));
                }
                Err(faults) => checked.invalid.push((index, Invalid::Event(faults))),
            }
        }
        checked
    }

    /// A request of which nothing is taken.
    fn none_of(events: usize, status: &Status) -> Self {
        let error = Arc::new(to_proto(status));
        let invalid = (0..events).map(|index| (index, Invalid::Request(Arc::clone(&error))));
        Self { valid: Vec::new(), invalid: invalid.collect() }
    }

    /// Why a request is refused as a whole: an event that may not be sent, or else all that is wrong, as
    /// fields of the request.
    fn refusal(self) -> Status {
        let mut violations = Vec::new();
        for (index, invalid) in self.invalid {
            match invalid {
                Invalid::Denied(error) => return status::access(error),
                Invalid::Event(faults) => violations.extend(faults.into_iter().map(|fault| {
                    Violation::new(format!("events[{index}].{}", fault.field), fault.description)
                })),
                Invalid::Request(_) => (),
            }
        }
        status::invalid(&violations)
    }

    /// Hands on what is valid of a message of so many bytes.
    async fn submit(
        self,
        ingest: &Ingest,
        bytes: usize,
        admission: Admission<'_>,
        account: Account,
    ) -> Result<InFlight, Status> {
        let Self { valid, invalid } = self;
        ingest.count_rejected(invalid.len());
        let bytes = if valid.is_empty() { 0 } else { bytes };
        let pending = ingest.submit(valid, bytes, admission, account).await;
        let pending = pending.map_err(status::ingest)?;
        Ok(InFlight { pending, invalid })
    }
}

/// A request whose valid events are on their way to the store.
struct InFlight {
    pending: Pending,
    invalid: Vec<(usize, Invalid)>,
}

impl InFlight {
    async fn response(self) -> Result<PublishResponse, Status> {
        let outcomes = self.pending.outcomes().await.map_err(status::ingest)?;
        let mut response = PublishResponse {
            results: Vec::with_capacity(outcomes.len() + self.invalid.len()),
            rejected: self.invalid.len() as i64,
            ..PublishResponse::default()
        };
        let mut outcomes = outcomes.into_iter();
        for (index, invalid) in self.invalid {
            let valid = outcomes.by_ref().take(index - response.results.len());
            add(&mut response, valid);
            response.results.push(rejected(invalid));
        }
        add(&mut response, outcomes);
        Ok(response)
    }
}

/// Adds the results of judged events, and counts them.
fn add(response: &mut PublishResponse, outcomes: impl Iterator<Item = Option<Outcome>>) {
    for outcome in outcomes {
        let Some(Outcome { verdict, first_received_at, .. }) = outcome else {
            response.rejected += 1;
            let fault = Arc::new(to_proto(&status::internal()));
            response.results.push(rejected(Invalid::Request(fault)));
            continue;
        };
        let (status, differing_fields) = match verdict {
            Verdict::Accepted => (PublishStatus::Accepted, Vec::new()),
            Verdict::Duplicate => (PublishStatus::Duplicate, Vec::new()),
            Verdict::Conflict(difference) => {
                (PublishStatus::Conflict, difference.fields().map(str::to_owned).collect())
            }
        };
        response.received += 1;
        match status {
            PublishStatus::Accepted => response.unique_processed += 1,
            _ => response.duplicate_dropped += 1,
        }
        response.conflicts += i64::from(status == PublishStatus::Conflict);
        response.results.push(PublishResult {
            status: status.into(),
            first_received_at: Some(timestamp(first_received_at)),
            differing_fields,
            error: None,
        });
    }
}

fn rejected(invalid: Invalid) -> PublishResult {
    let error = match invalid {
        Invalid::Event(violations) => to_proto(&status::invalid(&violations)),
        Invalid::Denied(error) => to_proto(&status::access(error)),
        Invalid::Request(error) => Arc::unwrap_or_clone(error),
    };
    PublishResult {
        status: PublishStatus::Rejected.into(),
        error: Some(error),
        ..PublishResult::default()
    }
}

/// The same error as a message of the contract.
fn to_proto(status: &Status) -> tonic_types::Status {
    // The details of a status made by `status` are an encoded google.rpc.Status.
    tonic_types::Status::decode(status.details()).unwrap_or_else(|_| tonic_types::Status {
        code: status.code().into(),
        message: status.message().to_owned(),
        details: Vec::new(),
    })
}
