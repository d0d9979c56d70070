//! BatchGetEvents.

use event_aggregator::proto::v1::{BatchGetEventsRequest, Event, EventKey, PayloadFormat};

use crate::harness::*;

on_both_stores!(lookup_keeps_key_order, large_lookup_is_truncated_and_resumable,);

fn key(topic: &str, event_id: &str) -> EventKey {
    EventKey { topic: topic.into(), event_id: event_id.into() }
}

async fn lookup_keeps_key_order(backend: Backend) {
    let server = TestServer::start(backend).await;
    let mut client = server.client().await;
    let stored = vec![event_with("a", "1", r#"{"n":1}"#), event("b", "2"), event("a", "3")];
    publish(&mut client, stored).await;
    let request = BatchGetEventsRequest {
        keys: vec![key("a", "3"), key("a", "2"), key("a", "1"), key("A", "1"), key("a", "3")],
        payload_format: PayloadFormat::Json.into(),
    };
    let response = client.batch_get_events(request).await.expect("found").into_inner();
    assert_eq!(ids(&response.events), ["3", "1", "3"]);
    assert_eq!(payload_text(&response.events[1]), r#"{"n":1}"#);
    assert_eq!(response.missing, [key("a", "2"), key("A", "1")]);
}

async fn large_lookup_is_truncated_and_resumable(backend: Backend) {
    let server = TestServer::start(backend).await;
    let mut client = server.client().await;
    let large = format!(r#"{{"x":"{}"}}"#, "x".repeat(1_000_000));
    for id in 0..6 {
        publish(&mut client, vec![event_with("t", &id.to_string(), &large)]).await;
    }
    let mut keys: Vec<EventKey> = (0..12).map(|id| key("t", &(id / 2).to_string())).collect();
    keys.insert(5, key("t", "missing"));
    let mut found: Vec<Event> = Vec::new();
    let mut missing = 0;
    while !keys.is_empty() {
        let request = BatchGetEventsRequest { keys: keys.clone(), ..Default::default() };
        let response = client.batch_get_events(request).await.expect("found").into_inner();
        let reached = response.events.len() + response.missing.len();
        assert!(reached > 0);
        missing += response.missing.len();
        found.extend(response.events);
        keys.drain(..reached);
    }
    assert_eq!([found.len(), missing], [12, 1]);
}
