//! Subscribe.

use prost::Message;
use tonic::{Response, Status, codegen::BoxStream};
use tracing::Instrument;
use uuid::Uuid;

use super::convert;
use crate::{
    access::Caller,
    admission::{self, Closed, Outbox},
    api::{Api, Error, Subscriber},
    cursor::Cursor,
    edge::with_task_errors,
    event::{Event, Name, Violations},
    feed::{Frame, Held},
    limits::{EVENT_ENVELOPE_BYTES, MAX_RESPONSE_BYTES},
    proto::{
        v1::{CaughtUp, Checkpoint, PayloadFormat, SubscribeRequest},
        wire::{EventBatch, SubscribeResponse, subscribe_response},
    },
};

pub(super) async fn subscribe(
    api: &Api,
    caller: Caller,
    request: SubscribeRequest,
) -> Result<Response<BoxStream<SubscribeResponse>>, Error> {
    let mut violations = Violations::default();
    let format = violations.check(convert::payload_format(request.payload_format));
    let names = request.topics.into_iter().enumerate();
    let topics = names
        .filter_map(|(index, name)| violations.check(Name::new(&format!("topics[{index}]"), name)))
        .map(Name::into_string)
        .collect();
    Error::check(violations)?;

    let cursor = if request.cursor.is_empty() { "beginning" } else { &request.cursor };
    let subscriber = api.subscribe(caller, topics, cursor).await?;
    let (frames, responses) = admission::outbox();
    let unsent = responses.unsent();
    let encoding = Encoding { store: api.store.id(), format: format.unwrap_or_default() };
    let sending = tokio::spawn(send(subscriber, encoding, frames).in_current_span());
    let mut response =
        Response::new(Box::pin(with_task_errors(responses, sending)) as BoxStream<_>);
    response.extensions_mut().insert(unsent);
    Ok(response)
}

/// Queue of frames for the connection, with their memory permits.
type Frames = Outbox<Result<SubscribeResponse, Status>, Option<Held>>;

/// Sends frames until the client disconnects or stalls, or the subscription ends.
async fn send(mut subscriber: Subscriber, encoding: Encoding, frames: Frames) {
    let error = loop {
        // Read a frame only when it can be queued, so that a slow client does not get stale ones.
        tokio::select! {
            ready = ready(&frames, subscriber.is_short()) => if ready.is_err() {
                return;
            },
            error = subscriber.ended() => break error,
        }
        let frame = tokio::select! {
            frame = subscriber.next() => frame,
            _ = frames.closed() => return,
        };
        match frame {
            Ok(frame) => {
                let (response, held) = encoding.response(frame);
                frames.put(Ok(response), held);
            }
            Err(error) => break error,
        }
    };
    // Release the store before waiting for a client that may not read.
    drop(subscriber);
    if frames.ready().await.is_ok() {
        frames.put(Err(error.into()), None);
    }
}

/// Waits for a free slot; if memory is short, until the previous frame has been sent.
async fn ready(frames: &Frames, is_short: bool) -> Result<(), Closed> {
    if is_short { frames.drained().await } else { frames.ready().await }
}

/// Encodes frames.
struct Encoding {
    store: Uuid,
    format: PayloadFormat,
}

impl Encoding {
    fn response(&self, frame: Frame) -> (SubscribeResponse, Option<Held>) {
        use subscribe_response::Frame as Encoded;
        let cursor = |cursor: &Cursor| cursor.encode(self.store);
        let (frame, held) = match frame {
            Frame::Events(events, cursor, held) => {
                let (batch, held) = self.batch(events, &cursor, held);
                (Encoded::Events(batch), Some(held))
            }
            Frame::Checkpoint(at) => {
                (Encoded::Checkpoint(Checkpoint { cursor: cursor(&at) }), None)
            }
            Frame::CaughtUp(at) => (Encoded::CaughtUp(CaughtUp { cursor: cursor(&at) }), None),
        };
        (SubscribeResponse { frame: Some(frame) }, held)
    }

    /// Encodes a batch of events. A payload takes more memory as a `Struct` than as text, and is
    /// encoded as text if there is not enough.
    fn batch(
        &self,
        events: Vec<(Event, Cursor)>,
        cursor: &Cursor,
        mut held: Held,
    ) -> (EventBatch, Held) {
        let payloads: usize = events.iter().map(|(event, _)| event.payload.as_str().len()).sum();
        let as_text = payloads + events.len() * EVENT_ENVELOPE_BYTES;
        let most = (payloads * LARGER_AS_STRUCTURE).min(MAX_RESPONSE_BYTES.saturating_sub(as_text));
        let more = match self.format {
            PayloadFormat::Json => 0,
            PayloadFormat::Unspecified | PayloadFormat::Struct => held.grow(most),
        };
        let others = MAX_RESPONSE_BYTES.saturating_sub(as_text + more);
        let events = convert::events(events, self.store, self.format, others);
        let batch = EventBatch { events, cursor: cursor.encode(self.store) };
        if more > 0 {
            held.shrink(batch.encoded_len().saturating_sub(payloads));
        }
        (batch, held)
    }
}

/// Maximum bytes of a `Struct` beyond each byte of its text: an item `1,` takes eleven bytes.
const LARGER_AS_STRUCTURE: usize = 5;
