//! Random events on a running service: both stores return the same verdicts, and every read call
//! returns stored events unchanged.

use std::sync::atomic::{AtomicUsize, Ordering};

use event_aggregator::proto::v1::{
    BatchGetEventsRequest, Event, EventKey, ListEventsRequest, PayloadFormat, PublishRequest,
    PublishResult, PublishStatus, SubscribeRequest, event::Content, subscribe_response::Frame,
};
use proptest::collection::vec;

use super::{check, made_up, targets};
use crate::harness::*;

/// A service on one of the stores, with a feed cursor.
struct Side {
    server: TestServer,
    client: Client,
    cursor: std::cell::RefCell<String>,
}

impl Side {
    async fn start(backend: Backend) -> Self {
        let server = TestServer::start(backend).await;
        let client = server.client().await;
        Self { server, client, cursor: String::new().into() }
    }

    async fn publish(&self, events: Vec<Event>) -> Vec<PublishResult> {
        let request = PublishRequest { events, allow_partial: true };
        self.client.clone().publish(request).await.expect("published").into_inner().results
    }

    async fn look_up(&self, keys: Vec<EventKey>, format: PayloadFormat) -> Vec<Event> {
        let request = BatchGetEventsRequest { keys, payload_format: format.into() };
        let found = self.client.clone().batch_get_events(request).await.expect("found");
        found.into_inner().events
    }

    async fn newest(&self, events: usize, format: PayloadFormat) -> Vec<Event> {
        let request = ListEventsRequest {
            page_size: events as i32,
            payload_format: format.into(),
            ..Default::default()
        };
        self.client.clone().list_events(request).await.expect("listed").into_inner().events
    }

    /// New events in the feed.
    async fn feed(&self, events: usize, format: PayloadFormat) -> Vec<Event> {
        let request = SubscribeRequest {
            cursor: self.cursor.borrow().clone(),
            payload_format: format.into(),
            ..Default::default()
        };
        let mut frames = self.client.clone().subscribe(request).await.expect("feed").into_inner();
        let (mut read, mut cursor) = (Vec::new(), String::new());
        while read.len() < events {
            let frame = frames.message().await.expect("a frame").expect("no end");
            if let Some(Frame::Events(batch)) = frame.frame {
                read.extend(batch.events);
                cursor = batch.cursor;
            }
        }
        if !cursor.is_empty() && matches!(format, PayloadFormat::Json) {
            self.cursor.replace(cursor);
        }
        read
    }
}

fn key(event: &Event) -> EventKey {
    EventKey { topic: event.topic.clone(), event_id: event.event_id.clone() }
}

fn sorted(mut events: Vec<Event>) -> Vec<Event> {
    events.sort_by(|a, b| (&a.topic, &a.event_id).cmp(&(&b.topic, &b.event_id)));
    // Times and positions differ between calls and stores.
    for event in &mut events {
        event.cursor.clear();
    }
    events
}

/// Whether an event was returned as it was sent.
fn agrees(given: &Event, sent: &Event) {
    assert_eq!(given.source, sent.source);
    match (&given.content, &sent.content) {
        (Some(Content::PayloadJson(given)), Some(Content::PayloadJson(sent))) => {
            assert_eq!(given, sent, "byte by byte");
        }
        (Some(Content::Payload(structure)), Some(Content::PayloadJson(text)))
        | (Some(Content::PayloadJson(text)), Some(Content::Payload(structure))) => {
            targets::structure::agrees(structure, text);
        }
        (Some(Content::Payload(given)), Some(Content::Payload(sent))) => assert_eq!(given, sent),
        (Some(Content::PayloadJson(given)), None) => assert_eq!(given, "{}"),
        (Some(Content::Payload(given)), None) => assert!(given.fields.is_empty()),
        (None, _) => panic!("an event without content: {given:?}"),
    }
}

async fn both(sides: &[Side; 2], events: Vec<Event>) {
    use PublishStatus::{Accepted, Rejected};
    let [one, other] = sides;
    let results = one.publish(events.clone()).await;
    let others = other.publish(events.clone()).await;
    let said = |results: &[PublishResult]| -> Vec<_> {
        let said = results.iter();
        said.map(|result| (result.status(), result.differing_fields.clone(), result.error.clone()))
            .collect()
    };
    assert_eq!(said(&results), said(&others), "both stores say the same");
    let internal = |result: &PublishResult| result.error.as_ref().is_some_and(|e| e.code != 3);
    assert!(!results.iter().any(internal), "{results:?}");
    let with = |status| {
        let pairs = events.iter().zip(&results);
        pairs.filter(move |(_, result)| result.status() == status).map(|(event, _)| event)
    };
    assert_eq!(results.len(), events.len());
    let stored: Vec<Event> = sorted(with(Accepted).cloned().collect());
    if stored.is_empty() {
        return;
    }
    let refused = with(Rejected).filter(|event| is_name(&event.topic) && is_name(&event.event_id));
    let is_stored = |event: &&Event| !stored.iter().any(|stored| key(stored) == key(event));
    let refused: Vec<EventKey> = refused.filter(is_stored).map(key).collect();
    for side in sides {
        for format in [PayloadFormat::Struct, PayloadFormat::Json] {
            let keys: Vec<EventKey> = stored.iter().map(key).collect();
            let found = sorted(side.look_up(keys, format).await);
            assert_eq!(found.len(), stored.len());
            found.iter().zip(&stored).for_each(|(given, sent)| agrees(given, sent));
            assert_eq!(sorted(side.newest(stored.len(), format).await), found);
            assert_eq!(sorted(side.feed(stored.len(), format).await), found);
        }
        if !refused.is_empty() {
            assert_eq!(side.look_up(refused.clone(), PayloadFormat::Json).await, []);
        }
    }
}

fn is_name(text: &str) -> bool {
    event_aggregator::event::Name::new("name", text.to_owned()).is_ok()
}

#[test]
fn stores_return_equal_verdicts_and_events() {
    let runtime = tokio::runtime::Runtime::new().expect("runtime");
    let sides = runtime.block_on(async {
        [Side::start(Backend::Sqlite).await, Side::start(Backend::Postgres).await]
    });
    let cases = AtomicUsize::new(0);
    check(32, vec(made_up::event(), 1..12), |mut events| {
        // Separate keys for each case, and a valid event next to the random one.
        let case = cases.fetch_add(1, Ordering::Relaxed);
        let named = events.iter_mut().filter(|event| !event.event_id.is_empty());
        named.for_each(|event| event.event_id.insert_str(0, &format!("{case}.")));
        events.push(event("neighbour", &case.to_string()));
        runtime.block_on(both(&sides, events));
    });
    runtime.block_on(async {
        for side in sides {
            let Side { server, client, .. } = side;
            drop(client);
            let database = server.stop().await;
            let report = event_aggregator::app::verify(&database.url).await.expect("verified");
            assert!(report.is_exact(), "{report:?}");
        }
    });
}
