//! Publish and PublishStream.

use prost::Message;
use tokio::sync::mpsc;
use tokio_stream::{StreamExt, wrappers::ReceiverStream};
use tokio_util::sync::CancellationToken;
use tonic::{Status, Streaming, codegen::BoxStream};
use tracing::Instrument;

use super::{convert, status};
use crate::{
    event::{NewEvent, Outcome, Verdict, Violation},
    ingest::{Admission, Ingest, Pending, Share},
    limits::{MAX_REQUEST_BYTES, MAX_REQUEST_EVENTS, STREAM_REQUESTS_IN_FLIGHT},
    proto::{
        incoming::{Event, PublishRequest, PublishStreamRequest},
        timestamp,
        v1::{PublishResponse, PublishResult, PublishStatus, PublishStreamResponse},
    },
};

pub(super) async fn unary(
    ingest: &Ingest,
    request: PublishRequest,
) -> Result<PublishResponse, Status> {
    if request.events.is_empty() {
        return Err(status::invalid(&[Violation::new("events", "must not be empty")]));
    }
    check_size(request.events.len(), request.encoded_len()).map_err(status::too_large)?;

    let allow_partial = request.allow_partial;
    let checked = Checked::of(request.events);
    if !allow_partial && !checked.invalid.is_empty() {
        ingest.count_rejected(checked.invalid.len());
        return Err(status::invalid(&checked.violations()));
    }
    let in_flight = checked.submit(ingest, Admission::Refuse).await?;
    in_flight.response().await
}

/// Answers requests in their order, reading ahead of the commits as far as the queue allows.
pub(super) fn stream(
    ingest: Ingest,
    requests: Streaming<PublishStreamRequest>,
    stopping: CancellationToken,
) -> BoxStream<PublishStreamResponse> {
    let (in_flight, responses) = mpsc::channel(STREAM_REQUESTS_IN_FLIGHT);
    let reading = tokio::spawn(read(ingest, requests, in_flight, stopping).in_current_span());
    let responses = ReceiverStream::new(responses).then(|request: Result<_, Status>| async {
        let (request_id, in_flight): (String, InFlight) = request?;
        let response = in_flight.response().await?;
        Ok(stream_response(request_id, response))
    });
    // A stream may end well only if it was read to its end.
    let end = tokio_stream::once(reading).then(|reading| reading);
    Box::pin(responses.chain(end.filter_map(|end| end.err().map(|_| Err(status::internal())))))
}

/// Reads a stream until it ends, the service stops, or the caller is gone. What was submitted until
/// then is stored and answered.
async fn read(
    ingest: Ingest,
    mut requests: Streaming<PublishStreamRequest>,
    in_flight: mpsc::Sender<Result<(String, InFlight), Status>>,
    stopping: CancellationToken,
) {
    let share = Share::default();
    // No slot, no reading: this is how a full queue reaches the producer.
    while let Ok(slot) = in_flight.reserve().await {
        let request = tokio::select! {
            request = requests.message() => request,
            () = stopping.cancelled() => Err(status::stopping()),
            // The call has ended although its caller would go on, as when its time is over.
            () = in_flight.closed() => return,
        };
        let submitted = match request {
            Ok(Some(request)) => submit(&ingest, &share, request).await,
            Ok(None) => return,
            Err(status) => Err(status),
        };
        let failed = submitted.is_err();
        slot.send(submitted);
        if failed {
            return;
        }
    }
}

async fn submit(
    ingest: &Ingest,
    share: &Share,
    request: PublishStreamRequest,
) -> Result<(String, InFlight), Status> {
    let size = check_size(request.events.len(), request.encoded_len());
    let checked = match size {
        Ok(()) => Checked::of(request.events),
        Err(violation) => Checked::none_of(request.events.len(), &status::too_large(violation)),
    };
    Ok((request.request_id, checked.submit(ingest, Admission::Wait(share)).await?))
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

/// What is wrong with an event: its own faults, or that of the whole request.
enum Invalid {
    Event(Vec<Violation>),
    Request(tonic_types::Status),
}

impl Checked {
    fn of(events: Vec<Event>) -> Self {
        let mut checked = Self { valid: Vec::with_capacity(events.len()), invalid: Vec::new() };
        for (index, event) in events.into_iter().enumerate() {
            match convert::new_event(event) {
                Ok(event) => checked.valid.push(event),
                Err(faults) => checked.invalid.push((index, Invalid::Event(faults))),
            }
        }
        checked
    }

    /// A request of which nothing is taken.
    fn none_of(events: usize, status: &Status) -> Self {
        let error = to_proto(status);
        let invalid = (0..events).map(|index| (index, Invalid::Request(error.clone())));
        Self { valid: Vec::new(), invalid: invalid.collect() }
    }

    /// All that is wrong, as fields of the request.
    fn violations(&self) -> Vec<Violation> {
        let mut violations = Vec::new();
        for (index, invalid) in &self.invalid {
            let Invalid::Event(faults) = invalid else { continue };
            violations.extend(faults.iter().map(|fault| {
                Violation::new(format!("events[{index}].{}", fault.field), &*fault.description)
            }));
        }
        violations
    }

    async fn submit(self, ingest: &Ingest, admission: Admission<'_>) -> Result<InFlight, Status> {
        let Self { valid, invalid } = self;
        ingest.count_rejected(invalid.len());
        let pending = ingest.submit(valid, admission).await.map_err(status::ingest)?;
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
        let Some(Outcome { verdict, first_received_at }) = outcome else {
            response.rejected += 1;
            response.results.push(rejected(Invalid::Request(to_proto(&status::internal()))));
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
        Invalid::Request(error) => error,
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
