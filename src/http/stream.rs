//! `GET /events/stream`: the feed as server-sent events. Their ids are cursors, so browsers resume
//! automatically after a reconnect.

use std::sync::Arc;

use axum::{
    Extension,
    extract::State,
    http::HeaderMap,
    response::{
        IntoResponse,
        sse::{self, KeepAlive, Sse},
    },
};
use tracing::Instrument;
use uuid::Uuid;

use super::{event::EventJson, parameters::Parameters, query::unknown};
use crate::{
    access::Caller,
    admission::{self, Outbox},
    api::{Api, Error, Subscriber},
    edge::with_task_errors,
    event::{Name, Violations},
    feed::{Frame, Held},
};

/// The header in which a client that reconnects sends the id of the last event.
const LAST_EVENT_ID: &str = "last-event-id";

pub(super) async fn stream(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    headers: HeaderMap,
    Parameters(parameters): Parameters,
) -> Result<impl IntoResponse, Error> {
    let mut topics = Vec::new();
    let mut cursor = String::new();
    let mut violations = Violations::default();
    for (name, value) in parameters {
        match &*name {
            "topic" => {
                topics.extend(violations.check(Name::new(&name, value)).map(Name::into_string));
            }
            "cursor" => cursor = value,
            _ => violations.push(unknown(&name, "topic, cursor")),
        }
    }
    Error::check(violations)?;
    if let Some(last) = headers.get(LAST_EVENT_ID) {
        // After a reconnect, the cursor in the URL is outdated.
        cursor = last.to_str().unwrap_or("?").to_owned();
    }
    if cursor.is_empty() {
        cursor = "end".to_owned();
    }
    let subscriber = api.subscribe(caller, topics, &cursor).await?;
    let (outbox, events) = admission::outbox();
    let unsent = events.unsent();
    let sending = tokio::spawn(send(subscriber, api.store.id(), outbox).in_current_span());
    let sse = Sse::new(with_task_errors(events, sending)).keep_alive(KeepAlive::default());
    Ok((Extension(unsent), sse))
}

/// Queue of events for the connection, with the memory permits of their batch.
type Events = Outbox<Result<sse::Event, Error>, Arc<Option<Held>>>;

/// Sends events until the client disconnects or stalls, or the subscription ends. The response has
/// no place for the error; a client that reconnects gets it.
async fn send(mut subscriber: Subscriber, store: Uuid, outbox: Events) {
    loop {
        if subscriber.is_short() {
            tokio::select! {
                drained = outbox.drained() => if drained.is_err() {
                    return;
                },
                _ = subscriber.ended() => return,
            }
        }
        let frame = tokio::select! {
            frame = subscriber.next() => frame,
            _ = outbox.closed() => return,
        };
        let (batch, cursor, held) = match frame {
            Ok(Frame::Events(batch, cursor, held)) => (batch, cursor, Some(held)),
            Ok(Frame::Checkpoint(cursor) | Frame::CaughtUp(cursor)) => (Vec::new(), cursor, None),
            Err(_) => return,
        };
        let held = Arc::new(held);
        for (event, cursor) in batch {
            let id = cursor.encode(store);
            let Ok(event) = EventJson::new(event, id.clone()) else { return };
            let Ok(event) = sse::Event::default().id(id).json_data(event) else { return };
            if !put(&mut subscriber, &outbox, event, &held).await {
                return;
            }
        }
        // Clients do not dispatch an event without data, but they store its id.
        let checkpoint = sse::Event::default().id(cursor.encode(store));
        if !put(&mut subscriber, &outbox, checkpoint, &held).await {
            return;
        }
    }
}

/// Queues an event once there is a free slot. Returns false if the subscription ends first, which
/// can happen because a batch takes long with a slow client.
async fn put(
    subscriber: &mut Subscriber,
    outbox: &Events,
    event: sse::Event,
    held: &Arc<Option<Held>>,
) -> bool {
    tokio::select! {
        biased;
        _ = subscriber.ended() => return false,
        ready = outbox.ready() => if ready.is_err() {
            return false;
        },
    }
    outbox.put(Ok(event), Arc::clone(held));
    true
}
