//! Subscribe.

use std::sync::Arc;

use tokio::sync::mpsc;
use tokio_stream::{StreamExt, wrappers::ReceiverStream};
use tokio_util::sync::CancellationToken;
use tonic::{Status, codegen::BoxStream};
use uuid::Uuid;

use super::{
    convert::{self, Violations},
    status,
};
use crate::{
    access::{Identity, Verb},
    cursor::Cursor,
    event::{Name, Violation},
    feed::{self, Frame, Start, Subscription},
    limits::MAX_SUBSCRIBED_TOPICS,
    load::CallerKey,
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
) -> Result<BoxStream<SubscribeResponse>, Status> {
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
    let subscription = subscription.map_err(|error| match error {
        feed::Error::Future => status::cursor(error),
        feed::Error::TooMany(full) => status::too_many_subscribers(full),
        feed::Error::Store(error) => status::store(error),
    })?;
    // One frame waits here while its reader is busy with others; more are not read.
    let (frames, responses) = mpsc::channel(1);
    let reader = Reader { caller, topics, store: store.id(), format };
    let sending = tokio::spawn(send(subscription, reader, frames, service.stopping.clone()));
    // It never ends by itself, so an end that was not told is a fault.
    let end = tokio_stream::once(sending).then(|sending| sending);
    let end = end.filter_map(|end| end.err().map(|_| Err(status::internal())));
    Ok(Box::pin(ReceiverStream::new(responses).chain(end)))
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

/// Sends frames until the reader is gone or must not read on, the service stops, or the store fails.
async fn send(
    mut subscription: Subscription,
    mut reader: Reader,
    frames: mpsc::Sender<Result<SubscribeResponse, Status>>,
    stopping: CancellationToken,
) {
    loop {
        // A frame is read when there is room for it, so that what a slow reader gets is never old.
        let slot = tokio::select! {
            slot = frames.reserve() => slot,
            () = stopping.cancelled() => break,
        };
        let Ok(slot) = slot else { return };
        let frame = tokio::select! {
            frame = subscription.next() => frame.map(Some).map_err(status::store),
            changed = reader.caller.changed() => changed.map(|()| None).map_err(status::access),
            () = stopping.cancelled() => break,
            () = frames.closed() => return,
        };
        match frame.and_then(|frame| reader.check().map(|()| frame)) {
            Ok(Some(frame)) => slot.send(Ok(response(frame, reader.store, reader.format))),
            Ok(None) => (),
            Err(status) => {
                slot.send(Err(status));
                return;
            }
        }
    }
    // A reader that takes nothing any more must not keep the store open.
    drop(subscription);
    let _ = frames.send(Err(status::feed_stopping())).await;
}

fn response(frame: Frame, store: Uuid, format: PayloadFormat) -> SubscribeResponse {
    use subscribe_response::Frame as Sent;
    let sent = match frame {
        Frame::Events(events, cursor) => {
            let (events, cursors): (Vec<_>, Vec<Cursor>) = events.into_iter().unzip();
            let cursors = cursors.iter().map(|cursor| cursor.encode(store));
            let events = convert::events(events, cursors, format, 0);
            Sent::Events(EventBatch { events, cursor: cursor.encode(store) })
        }
        Frame::Checkpoint(cursor) => Sent::Checkpoint(Checkpoint { cursor: cursor.encode(store) }),
        Frame::CaughtUp(cursor) => Sent::CaughtUp(CaughtUp { cursor: cursor.encode(store) }),
    };
    SubscribeResponse { frame: Some(sent) }
}
