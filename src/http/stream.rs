//! `GET /events/stream`: the feed as server-sent events, whose ids are cursors, so that browsers go on
//! where they were by themselves.

use std::{convert::Infallible, sync::Arc};

use axum::{
    Extension,
    extract::State,
    http::HeaderMap,
    response::{
        IntoResponse,
        sse::{self, KeepAlive, Sse},
    },
};
use uuid::Uuid;

use super::{
    access::{Authentication, Caller},
    error::Error,
    event::Given,
    parameters::Parameters,
    query::unknown,
};
use crate::{
    access::{Identity, Verb},
    cursor::Cursor,
    event::{Name, Violation},
    feed::{Frame, Held, Start, Subscription},
    limits::MAX_SUBSCRIBED_TOPICS,
    load::{self, Outbox},
    service::Service,
};

/// The header in which a browser that connects again says where it was.
const LAST_EVENT_ID: &str = "last-event-id";

pub(super) async fn stream(
    Caller(caller): Caller,
    authentication: Authentication,
    State(service): State<Service>,
    headers: HeaderMap,
    Parameters(parameters): Parameters,
) -> Result<impl IntoResponse, Error> {
    let mut topics = Vec::new();
    let mut cursor = String::new();
    let mut violations = Vec::new();
    for (name, value) in parameters {
        match &*name {
            "topic" => match Name::new(&name, value) {
                Ok(topic) => topics.push(topic.into_string()),
                Err(violation) => violations.push(violation),
            },
            "cursor" => cursor = value,
            _ => violations.push(unknown(&name, "topic, cursor")),
        }
    }
    if topics.len() > MAX_SUBSCRIBED_TOPICS {
        let fault = format!("comes more than {MAX_SUBSCRIBED_TOPICS} times");
        violations.push(Violation::new("topic", fault));
    }
    if let Some(last) = headers.get(LAST_EVENT_ID) {
        // Later than what the address says: it is from the same address.
        cursor = last.to_str().unwrap_or("?").to_owned();
    }
    let start = match &*cursor {
        "" | "end" => Start::End,
        "beginning" => Start::Beginning,
        cursor => Start::Cursor(
            Cursor::decode(cursor, service.store.id(), service.store.lanes())
                .map_err(Error::cursor)?,
        ),
    };
    if !violations.is_empty() {
        return Err(Error::invalid(violations));
    }
    caller.demand_filtered(Verb::Read, &topics).map_err(Error::access)?;
    let topics: Arc<[String]> = topics.into();
    let subscription =
        service.feed.subscribe(authentication.key(), start, Arc::clone(&topics)).await;
    let subscription = subscription.map_err(Error::feed)?;
    let (events, stream) = load::outbox();
    let unsent = stream.unsent();
    tokio::spawn(async move {
        // Also a reader that takes nothing any more must not keep the store open.
        let reader = Reader { caller, topics, store: service.store.id() };
        service.stopping.run_until_cancelled(reader.send(subscription, events)).await
    });
    let sse = Sse::new(stream).keep_alive(KeepAlive::default());
    Ok((Extension(unsent), sse))
}

/// Where an event waits for the connection, with what its batch holds in memory.
type Events = Outbox<Result<sse::Event, Infallible>, Arc<Option<Held>>>;

/// Who reads what.
struct Reader {
    caller: Identity,
    topics: Arc<[String]>,
    store: Uuid,
}

impl Reader {
    /// Whether it may read on, by what the access file says now.
    fn may_read(&mut self) -> bool {
        let known = self.caller.refresh();
        known.and_then(|()| self.caller.demand_filtered(Verb::Read, &*self.topics)).is_ok()
    }

    /// Sends an event once the last one was taken, if it may still be read then. A batch is long for a slow
    /// reader.
    async fn give(&mut self, events: &Events, event: sse::Event, held: &Arc<Option<Held>>) -> bool {
        while self.may_read() {
            tokio::select! {
                ready = events.ready() => {
                    let is_ready = ready.is_ok();
                    if is_ready {
                        events.put(Ok(event), Arc::clone(held));
                    }
                    return is_ready;
                }
                _ = self.caller.changed() => (),
            }
        }
        false
    }

    /// Sends events until the reader is gone, must not read on or takes nothing, or the store fails. Then
    /// the stream ends, and whoever reads it connects again with the last id, and is told why.
    async fn send(mut self, mut subscription: Subscription, events: Events) {
        loop {
            if subscription.is_short() && events.drained().await.is_err() {
                return;
            }
            let frame = tokio::select! {
                frame = subscription.next() => match frame {
                    Ok(frame) => Some(frame),
                    Err(_) => return,
                },
                _ = self.caller.changed() => None,
                _ = events.closed() => return,
            };
            if !self.may_read() {
                return;
            }
            let (batch, cursor, held) = match frame {
                Some(Frame::Events(batch, cursor, held)) => (batch, cursor, Some(held)),
                Some(Frame::Checkpoint(cursor) | Frame::CaughtUp(cursor)) => {
                    (Vec::new(), cursor, None)
                }
                None => continue,
            };
            let held = Arc::new(held);
            for (event, cursor) in batch {
                let id = cursor.encode(self.store);
                let Ok(event) = Given::new(event, id.clone()) else { return };
                let Ok(event) = sse::Event::default().id(id).json_data(event) else { return };
                if !self.give(&events, event, &held).await {
                    return;
                }
            }
            // Without data nobody is told, but the id is kept.
            let place = sse::Event::default().id(cursor.encode(self.store));
            if !self.give(&events, place, &held).await {
                return;
            }
        }
    }
}
