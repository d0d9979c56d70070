//! Requests with several violations, with oversized fields, and with the maximum sizes.

use event_aggregator::proto::v1::{Event, ListEventsRequest, PublishRequest};
use prost_types::{Timestamp, value::Kind};

use super::bad_input::{at, with_struct};
use crate::harness::*;

on_both_stores!(
    all_violations_are_reported_together,
    invalid_request_stores_nothing,
    oversized_requests_are_rejected,
    largest_names_and_payloads_are_accepted,
    many_violations_fit_in_the_trailers,
);

async fn all_violations_are_reported_together(backend: Backend) {
    let server = TestServer::start(backend).await;
    let mut client = server.client().await;
    let bad = Event { timestamp: at(0, -1).timestamp, ..event_with("", "", "x") };
    let worse = Event { source: String::new(), ..event("t", "1") };
    let status =
        try_publish(&mut client, vec![bad, event("t", "1"), worse]).await.expect_err("bad");
    assert_eq!(
        fields_at_fault(&status),
        [
            "events[0].topic",
            "events[0].event_id",
            "events[0].timestamp.nanos",
            "events[0].payload_json",
            "events[2].source",
        ]
    );
    assert_eq!(reason(&status), "INVALID_REQUEST");
    assert!(status.message().contains("events[0].topic must not be empty (and 4 more)"));
}

async fn invalid_request_stores_nothing(backend: Backend) {
    let server = TestServer::start(backend).await;
    let mut client = server.client().await;
    let mut events: Vec<Event> = (0..100).map(|n| event("t", &n.to_string())).collect();
    events[99].topic.clear();
    try_publish(&mut client, events).await.expect_err("one of them is bad");
    assert_eq!(server.stored().await, 0);
    let stats = stats(&mut client).await;
    assert_eq!(stats.received, 0);
    assert_eq!(stats.since_start.expect("since_start").rejected, 1);
}

async fn oversized_requests_are_rejected(backend: Backend) {
    let server = TestServer::start(backend).await;
    let mut client = server.client().await;
    let status = try_publish(&mut client, vec![]).await.expect_err("empty");
    assert_eq!(fields_at_fault(&status), ["events"]);

    let many: Vec<Event> = (0..1_001).map(|n| event("t", &n.to_string())).collect();
    let large = format!(r#"{{"x":"{}"}}"#, "x".repeat(1_000_000));
    let heavy: Vec<Event> = (0..5).map(|n| event_with("t", &n.to_string(), &large)).collect();
    for events in [many.clone(), heavy] {
        for allow_partial in [false, true] {
            let request = PublishRequest { events: events.clone(), allow_partial };
            let status = client.publish(request).await.expect_err("too much");
            assert_eq!(fields_at_fault(&status), ["events"]);
            assert_eq!(reason(&status), "REQUEST_TOO_LARGE");
        }
    }
    assert_eq!(server.stored().await, 0);
    assert_eq!(publish(&mut client, many[..1_000].to_vec()).await.unique_processed, 1_000);
}

async fn largest_names_and_payloads_are_accepted(backend: Backend) {
    let server = TestServer::start(backend).await;
    let mut client = server.client().await;
    // Random text, which no database can compress.
    let name = |seed: u64| -> String {
        let mut random = fastrand::Rng::with_seed(seed);
        (0..255).map(|_| random.alphanumeric()).collect()
    };
    let filler = (1 << 20) - r#"{"x":""}"#.len();
    let mut random = fastrand::Rng::with_seed(7);
    let payload: String = (0..filler).map(|_| random.alphanumeric()).collect();
    let largest = Event {
        source: name(3),
        ..event_with(&name(1), &name(2), &format!(r#"{{"x":"{payload}"}}"#))
    };
    assert_eq!(publish(&mut client, vec![largest.clone()]).await.unique_processed, 1);
    assert_eq!(publish(&mut client, vec![largest]).await.duplicate_dropped, 1);
    for (seconds, nanos) in [(-62_135_596_800, 0), (253_402_300_799, 999_999_999)] {
        let id = seconds.to_string();
        let extreme = Event { timestamp: at(seconds, nanos).timestamp, ..event("t", &id) };
        assert_eq!(publish(&mut client, vec![extreme.clone()]).await.unique_processed, 1);
        assert_eq!(publish(&mut client, vec![extreme]).await.conflicts, 0);
        let request = ListEventsRequest { topic: "t".into(), ..Default::default() };
        let listed = list_all(&mut client, request).await;
        let listed = listed.iter().find(|event| event.event_id == id).expect("listed");
        let kept = Timestamp { seconds, nanos: nanos / 1_000 * 1_000 };
        assert_eq!(listed.timestamp, Some(kept), "kept to the microsecond");
    }
}

async fn many_violations_fit_in_the_trailers(backend: Backend) {
    let server = TestServer::start(backend).await;
    let mut client = server.client().await;
    let empty = Event { content: None, ..Event::default() };
    let number = with_struct("n", Some(Kind::NumberValue(1e300)));
    for (bad, faults) in [(empty, 3_000), (number, 1_000), (at(0, -1), 1_000)] {
        let status = try_publish(&mut client, vec![bad; 1_000]).await.expect_err("bad");
        assert_eq!(fields_at_fault(&status).len(), 20);
        let more = format!("and {} more", faults - 1);
        assert!(status.message().contains(&more), "{}", status.message());
        // The default limit of gRPC clients, in base64.
        assert!((status.details().len() + status.message().len()) * 4 / 3 < 7 * 1_024);
    }
}
