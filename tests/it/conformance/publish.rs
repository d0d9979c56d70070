//! Publish: verdicts.

use event_aggregator::proto::v1::{Event, PublishRequest, PublishStatus::*};

use crate::harness::*;

on_both_stores!(
    event_is_accepted_once,
    duplicate_reports_first_received_at,
    conflict_reports_differing_fields,
    missing_timestamp_is_not_a_conflict,
    reformatted_payload_is_not_a_conflict,
    batch_events_have_individual_verdicts,
    batch_of_duplicates_only,
    keys_are_compared_bytewise,
    names_are_data_not_sql,
    results_keep_request_order_across_topics,
);

async fn event_is_accepted_once(backend: Backend) {
    let server = TestServer::start(backend).await;
    let mut client = server.client().await;
    let response = publish(&mut client, vec![event("t", "1")]).await;
    assert_eq!(response.results[0].status(), Accepted);
    assert_eq!([response.received, response.unique_processed], [1, 1]);
    assert_eq!([response.duplicate_dropped, response.conflicts, response.rejected], [0, 0, 0]);

    let response = publish(&mut client, vec![event("t", "1")]).await;
    assert_eq!(response.results[0].status(), Duplicate);
    assert_eq!([response.received, response.unique_processed], [1, 0]);
    assert_eq!([response.duplicate_dropped, response.conflicts, response.rejected], [1, 0, 0]);
    assert_eq!(server.stored().await, 1);
    assert_eq!(counters(&mut client).await, [2, 1, 1, 0]);
}

async fn duplicate_reports_first_received_at(backend: Backend) {
    let server = TestServer::start(backend).await;
    let mut client = server.client().await;
    let first = publish(&mut client, vec![event("t", "1")]).await.results[0].first_received_at;
    let again = publish(&mut client, vec![event("t", "1")]).await.results[0].first_received_at;
    assert!(first.is_some());
    assert_eq!(first, again);
    let stored = list_all(&mut client, Default::default()).await;
    assert_eq!(stored[0].received_at, first);
}

async fn conflict_reports_differing_fields(backend: Backend) {
    let server = TestServer::start(backend).await;
    let mut client = server.client().await;
    let at = |seconds| Some(prost_types::Timestamp { seconds, nanos: 0 });
    let original = Event { timestamp: at(1), ..event_with("t", "1", r#"{"a":1}"#) };
    publish(&mut client, vec![original.clone()]).await;

    let changes = [
        (Event { timestamp: at(2), ..original.clone() }, vec!["timestamp"]),
        (Event { source: "other".into(), ..original.clone() }, vec!["source"]),
        (Event { timestamp: at(1), ..event_with("t", "1", r#"{"a":2}"#) }, vec!["payload"]),
        (
            Event { timestamp: at(3), source: "x".into(), ..event("t", "1") },
            vec!["timestamp", "source", "payload"],
        ),
    ];
    for (changed, differing) in changes {
        let response = publish(&mut client, vec![changed]).await;
        assert_eq!(response.results[0].status(), Conflict);
        assert_eq!(response.results[0].differing_fields, differing);
        assert_eq!([response.duplicate_dropped, response.conflicts], [1, 1]);
    }
    assert_eq!(verdicts(&mut client, vec![original]).await, [Duplicate], "the first one stays");
    assert_eq!(counters(&mut client).await, [6, 1, 5, 4]);
}

async fn missing_timestamp_is_not_a_conflict(backend: Backend) {
    let server = TestServer::start(backend).await;
    let mut client = server.client().await;
    let timed = |id| Event {
        timestamp: Some(prost_types::Timestamp { seconds: 7, nanos: 0 }),
        ..event("t", id)
    };
    publish(&mut client, vec![event("t", "without"), timed("with")]).await;
    let again = vec![timed("without"), event("t", "with")];
    assert_eq!(verdicts(&mut client, again).await, [Duplicate, Duplicate]);
    let stored = list_all(&mut client, Default::default()).await;
    let without = stored.iter().find(|event| event.event_id == "without").expect("stored");
    assert_eq!(without.timestamp, without.received_at, "absent means the time of receipt");
}

async fn reformatted_payload_is_not_a_conflict(backend: Backend) {
    let server = TestServer::start(backend).await;
    let mut client = server.client().await;
    publish(&mut client, vec![event_with("t", "1", r#"{"a":1,"b":[true,"é"]}"#)]).await;
    let same = event_with("t", "1", r#" { "b" : [ true , "\u00e9" ] , "a" : 1.0 } "#);
    assert_eq!(verdicts(&mut client, vec![same]).await, [Duplicate]);
    let off_by_one = |n: &str| event_with("t", "2", &format!(r#"{{"n":{n}}}"#));
    publish(&mut client, vec![off_by_one("9007199254740992")]).await;
    assert_eq!(verdicts(&mut client, vec![off_by_one("9007199254740993")]).await, [Conflict]);
}

async fn batch_events_have_individual_verdicts(backend: Backend) {
    let server = TestServer::start(backend).await;
    let mut client = server.client().await;
    publish(&mut client, vec![event("t", "a")]).await;
    let batch = vec![
        event("t", "a"),
        event("t", "b"),
        event_with("t", "b", r#"{"changed":true}"#),
        event("t", "a"),
        event("t", "c"),
    ];
    let expected = [Duplicate, Accepted, Conflict, Duplicate, Accepted];
    assert_eq!(verdicts(&mut client, batch).await, expected);
    assert_eq!(server.stored().await, 3);
    assert_eq!(counters(&mut client).await, [6, 3, 3, 1]);
}

async fn batch_of_duplicates_only(backend: Backend) {
    let server = TestServer::start(backend).await;
    let mut client = server.client().await;
    let batch: Vec<Event> = (0..1_000).map(|id| event("t", &id.to_string())).collect();
    assert_eq!(publish(&mut client, batch.clone()).await.unique_processed, 1_000);
    for _ in 0..2 {
        assert_eq!(publish(&mut client, batch.clone()).await.duplicate_dropped, 1_000);
    }
    assert_eq!(counters(&mut client).await, [3_000, 1_000, 2_000, 0]);
}

async fn keys_are_compared_bytewise(backend: Backend) {
    let server = TestServer::start(backend).await;
    let mut client = server.client().await;
    let keys = [
        ("t", "id"),
        ("t", "ID"),
        ("T", "id"),
        ("t", "é"),
        ("t", "e\u{301}"),
        ("t", "i d"),
        ("ti", "d"),
        ("t", "ı"),
    ];
    let events: Vec<Event> = keys.iter().map(|(topic, id)| event(topic, id)).collect();
    assert_eq!(verdicts(&mut client, events.clone()).await, [Accepted; 8]);
    assert_eq!(verdicts(&mut client, events).await, [Duplicate; 8]);
}

async fn names_are_data_not_sql(backend: Backend) {
    let server = TestServer::start(backend).await;
    let mut client = server.client().await;
    let text = "'); DROP TABLE processed_events; --";
    let odd =
        Event { source: "$1\\'\"%_".into(), ..event_with(text, text, r#"{"q":"' OR 1=1; --"}"#) };
    assert_eq!(verdicts(&mut client, vec![odd.clone()]).await, [Accepted]);
    assert_eq!(verdicts(&mut client, vec![odd]).await, [Duplicate]);
    let stored = list_all(&mut client, Default::default()).await;
    assert_eq!([&*stored[0].topic, &*stored[0].event_id], [text, text]);
    assert_eq!(stored[0].source, "$1\\'\"%_");
}

async fn results_keep_request_order_across_topics(backend: Backend) {
    let server = TestServer::start(backend).await;
    let mut client = server.client().await;
    let old: Vec<Event> = (0..50).map(|n| event(&format!("t{}", n % 10), &n.to_string())).collect();
    publish(&mut client, old.clone()).await;
    let mixed: Vec<Event> =
        (0..100).map(|n| event(&format!("t{}", n % 10), &n.to_string())).collect();
    let expected: Vec<_> = (0..100).map(|n| if n < 50 { Duplicate } else { Accepted }).collect();
    assert_eq!(verdicts(&mut client, mixed).await, expected);

    let request = PublishRequest {
        events: vec![event("t1", "new"), event("", "bad"), event("t2", "2"), event("t3", "")],
        allow_partial: true,
    };
    let response = client.publish(request).await.expect("publish").into_inner();
    let got: Vec<_> = response.results.iter().map(|result| result.status()).collect();
    assert_eq!(got, [Accepted, Rejected, Duplicate, Rejected]);
    assert_eq!([response.received, response.rejected], [2, 2]);
    assert_eq!(response.results[1].error.as_ref().expect("an error").code, 3);
    assert!(response.results[3].error.as_ref().expect("an error").message.contains("event_id"));
}
