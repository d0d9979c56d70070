//! Subscribe.

use std::sync::Arc;

use prost::Message;
use tokio_stream::StreamExt;
use tokio_util::sync::CancellationToken;
use tonic::{Response, Status, codegen::BoxStream};
use uuid::Uuid;

use super::{
    convert::{self, Violations},
    status,
};
use crate::{
    access::{CallerKey, Identity, Verb},
    cursor::Cursor,
    event::{Event, Name, Violation},
    feed::{Frame, Held, Start, Subscription},
    limits::{EVENT_ENVELOPE_BYTES, MAX_RESPONSE_BYTES, MAX_SUBSCRIBED_TOPICS},
    load::{self, Closed, Outbox},
    proto::{
        outgoing::{EventBatch, SubscribeResponse, subscribe_response},
        v1::{CaughtUp, Checkpoint, PayloadFormat, SubscribeRequest},
    },
    service::Service,
};

pub(super) async fn subscribe(
    service: &Service,
    caller: Identity,
    key: &CallerKey,
    request: SubscribeRequest,
) -> Result<Response<BoxStream<SubscribeResponse>>, Status> {
    let store = &*service.store;
    let mut violations = Violations::default();
    let format = violations.check(convert::payload_format(request.payload_format));
    let topics = topics(request.topics, &mut violations);
    let (Some(format), true) = (format, violations.0.is_empty()) else {
        return Err(status::invalid(&violations.0));
    };
    caller.demand_filtered(Verb::Read, &*topics).map_err(status::access)?;
    let start = match &*request.cursor {
        "" | "beginning" => Start::Beginning,
        "end" => Start::End,
        cursor => Start::Cursor(
            Cursor::decode(cursor, store.id(), store.lanes()).map_err(status::cursor)?,
        ),
    };
    let subscription = service.feed.subscribe(key, start, Arc::clone(&topics)).await;
    let subscription = subscription.map_err(status::feed)?;
    let (frames, responses) = load::outbox();
    let unsent = responses.unsent();
    let reader = Reader { caller, topics, store: store.id(), format };
    let sending = tokio::spawn(send(subscription, reader, frames, service.stopping.clone()));
    // It never ends by itself, so an end that was not told is a fault.
    let end = tokio_stream::once(sending).then(|sending| sending);
    let end = end.filter_map(|end| end.err().map(|_| Err(status::internal())));
    let mut response = Response::new(Box::pin(responses.chain(end)) as BoxStream<_>);
    response.extensions_mut().insert(unsent);
    Ok(response)
}

fn topics(names: Vec<String>, violations: &mut Violations) -> Arc<[String]> {
    if names.len() > MAX_SUBSCRIBED_TOPICS {
        let fault = format!("has {} names; at most {MAX_SUBSCRIBED_TOPICS} are taken", names.len());
        violations.0.push(Violation::new("topics", fault));
        return Arc::default();
    }
    let names = names.into_iter().enumerate().filter_map(|(index, name)| {
        violations.check(Name::new(&format!("topics[{index}]"), name)).map(|name| name.to_string())
    });
    names.collect()
}

/// Who reads what, and how.
struct Reader {
    caller: Identity,
    topics: Arc<[String]>,
    store: Uuid,
    format: PayloadFormat,
}

impl Reader {
    /// Fails if it may not read on, by what the access file says now.
    fn check(&mut self) -> Result<(), Status> {
        let known = self.caller.refresh();
        known
            .and_then(|()| self.caller.demand_filtered(Verb::Read, &*self.topics))
            .map_err(status::access)
    }
}

/// Where frames wait for the connection, with what they hold in memory.
type Frames = Outbox<Result<SubscribeResponse, Status>, Option<Held>>;

/// Waits until a frame can be put in; where memory is short, until the last one was taken.
async fn ready(frames: &Frames, subscription: &Subscription) -> Result<(), Closed> {
    if subscription.is_short() { frames.drained().await } else { frames.ready().await }
}

/// Sends frames until the reader is gone, must not read on or takes nothing, the service stops, or the
/// store fails.
async fn send(
    mut subscription: Subscription,
    mut reader: Reader,
    frames: Frames,
    stopping: CancellationToken,
) {
    loop {
        // A frame is read when it can be put in, so that what a slow reader gets is never old.
        let ready = tokio::select! {
            ready = ready(&frames, &subscription) => ready,
            () = stopping.cancelled() => break,
        };
        if ready.is_err() {
            return;
        }
        let frame = tokio::select! {
            frame = subscription.next() => frame.map(Some).map_err(status::feed),
            changed = reader.caller.changed() => changed.map(|()| None).map_err(status::access),
            () = stopping.cancelled() => break,
            _ = frames.closed() => return,
        };
        match frame.and_then(|frame| reader.check().map(|()| frame)) {
            Ok(Some(frame)) => {
                let (response, held) = response(frame, reader.store, reader.format);
                frames.put(Ok(response), held);
            }
            Ok(None) => (),
            Err(status) => {
                frames.put(Err(status), None);
                return;
            }
        }
    }
    // A reader that takes nothing any more must not keep the store open.
    drop(subscription);
    if frames.ready().await.is_ok() {
        frames.put(Err(status::feed_stopping()), None);
    }
}

fn response(frame: Frame, store: Uuid, format: PayloadFormat) -> (SubscribeResponse, Option<Held>) {
    use subscribe_response::Frame as Sent;
    let (sent, held) = match frame {
        Frame::Events(events, cursor, held) => {
            let (batch, held) = batch(events, &cursor, held, store, format);
            (Sent::Events(batch), Some(held))
        }
        Frame::Checkpoint(cursor) => {
            (Sent::Checkpoint(Checkpoint { cursor: cursor.encode(store) }), None)
        }
        Frame::CaughtUp(cursor) => {
            (Sent::CaughtUp(CaughtUp { cursor: cursor.encode(store) }), None)
        }
    };
    (SubscribeResponse { frame: Some(sent) }, held)
}

/// A batch of events. As structures they take more memory than as text, several times as much at worst,
/// and stay text where there is none.
fn batch(
    events: Vec<(Event, Cursor)>,
    cursor: &Cursor,
    mut held: Held,
    store: Uuid,
    format: PayloadFormat,
) -> (EventBatch, Held) {
    let (events, cursors): (Vec<_>, Vec<Cursor>) = events.into_iter().unzip();
    let cursors = cursors.iter().map(|cursor| cursor.encode(store));
    let payloads: usize = events.iter().map(|event| event.payload.as_str().len()).sum();
    let as_text = payloads + events.len() * EVENT_ENVELOPE_BYTES;
    let most = (payloads * LARGER_AS_STRUCTURE).min(MAX_RESPONSE_BYTES.saturating_sub(as_text));
    let more = match format {
        PayloadFormat::Json => 0,
        PayloadFormat::Unspecified | PayloadFormat::Struct => held.grow(most),
    };
    let others = MAX_RESPONSE_BYTES.saturating_sub(as_text + more);
    let events = convert::events(events, cursors, format, others);
    let batch = EventBatch { events, cursor: cursor.encode(store) };
    if more > 0 {
        held.shrink(batch.encoded_len().saturating_sub(payloads));
    }
    (batch, held)
}

/// How many bytes a structure has at most beyond each byte of its text: an item `1,` takes eleven.
const LARGER_AS_STRUCTURE: usize = 5;
