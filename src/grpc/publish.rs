//! Publish and PublishStream.

use prost::Message;
use tokio::{sync::mpsc, time::sleep};
use tokio_stream::{StreamExt, wrappers::ReceiverStream};
use tonic::{Status, Streaming, codegen::BoxStream};
use tracing::Instrument;

use super::convert;
use crate::{
    access::Caller,
    api::{Api, Error, OnInvalid, Producer, Submitted},
    edge::with_task_errors,
    event::Violation,
    limits::{MAX_REQUEST_ID_BYTES, MAX_STREAM_REQUESTS_IN_FLIGHT, STREAM_IDLE_TIMEOUT},
    proto::{
        v1::{PublishResponse, PublishStreamResponse},
        wire::{PublishRequest, PublishStreamRequest},
    },
};

pub(super) async fn unary(
    api: &Api,
    caller: &Caller,
    request: PublishRequest,
) -> Result<PublishResponse, Error> {
    if request.events.is_empty() {
        return Err(Error::invalid(vec![Violation::new("events", "must not be empty")]));
    }
    let bytes = request.encoded_len();
    let on_invalid = match request.allow_partial {
        true => OnInvalid::RejectEvents,
        false => OnInvalid::RejectRequest(|index| format!("events[{index}].")),
    };
    let events = request.events.into_iter().map(convert::new_event).collect();
    api.publish(caller, events, bytes, on_invalid).await.map(convert::published)
}

/// Responds to requests in order. Reads ahead of the commits as far as the queue allows.
pub(super) fn stream(
    api: &Api,
    caller: Caller,
    requests: Streaming<PublishStreamRequest>,
) -> BoxStream<PublishStreamResponse> {
    let (in_flight, responses) = mpsc::channel(MAX_STREAM_REQUESTS_IN_FLIGHT);
    let reading = tokio::spawn(read(requests, api.producer(caller), in_flight).in_current_span());
    let responses = ReceiverStream::new(responses).then(|request: Result<_, Status>| async {
        let InFlight { request_id, submitted } = request?;
        Ok(response(request_id, convert::published(submitted.published().await?)))
    });
    Box::pin(with_task_errors(responses, reading))
}

/// A request whose events are queued.
struct InFlight {
    request_id: String,
    submitted: Submitted,
}

/// Reads a stream until it ends, is idle for too long, the server shuts down, or the caller
/// disconnects or loses its access. Requests that were submitted before are stored and get
/// responses.
async fn read(
    mut requests: Streaming<PublishStreamRequest>,
    mut producer: Producer,
    in_flight: mpsc::Sender<Result<InFlight, Status>>,
) {
    // Backpressure: the next request is read only when there is a free slot.
    while let Ok(slot) = in_flight.reserve().await {
        let next = tokio::select! {
            next = next(&mut requests, &mut producer) => next,
            // The call has ended before its request stream, for example at its deadline.
            () = in_flight.closed() => return,
        };
        let Some(next) = next.transpose() else { return };
        // Errors take more memory than events, so a request with errors takes all slots.
        if next.as_ref().is_ok_and(|request| request.submitted.has_rejections())
            && in_flight.reserve_many(MAX_STREAM_REQUESTS_IN_FLIGHT - 1).await.is_err()
        {
            return;
        }
        let has_failed = next.is_err();
        slot.send(next);
        if has_failed {
            return;
        }
    }
}

/// Waits for the next request and submits it. None if the stream has ended.
async fn next(
    requests: &mut Streaming<PublishStreamRequest>,
    producer: &mut Producer,
) -> Result<Option<InFlight>, Status> {
    let request = tokio::select! {
        request = requests.message() => request?,
        error = producer.ended() => return Err(error.into()),
        () = sleep(STREAM_IDLE_TIMEOUT) => return Err(Error::stream_idle().into()),
    };
    let Some(mut request) = request else { return Ok(None) };
    let bytes = request.encoded_len();
    let fault = check_id(&mut request.request_id).err();
    let events = match &fault {
        None => request.events.into_iter().map(convert::new_event).collect(),
        Some(fault) => request.events.iter().map(|_| Err(fault.clone())).collect(),
    };
    let submitted = producer.submit(events, bytes).await?;
    Ok(Some(InFlight { request_id: request.request_id, submitted }))
}

/// Checks the length of a request id. Truncates one that is too long to what is echoed.
fn check_id(request_id: &mut String) -> Result<(), Error> {
    let bytes = request_id.len();
    if bytes <= MAX_REQUEST_ID_BYTES {
        return Ok(());
    }
    request_id.truncate(request_id.floor_char_boundary(MAX_REQUEST_ID_BYTES));
    request_id.shrink_to_fit();
    let fault = format!(
        "has {bytes} bytes; the limit is {MAX_REQUEST_ID_BYTES}, and it is echoed truncated"
    );
    Err(Error::invalid(vec![Violation::new("request_id", fault)]))
}

fn response(request_id: String, response: PublishResponse) -> PublishStreamResponse {
    PublishStreamResponse {
        request_id,
        results: response.results,
        received: response.received,
        unique_processed: response.unique_processed,
        duplicate_dropped: response.duplicate_dropped,
        conflicts: response.conflicts,
        rejected: response.rejected,
    }
}
