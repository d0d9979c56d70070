//! Bad input: refused with the names of all fields at fault, and nothing stored or counted.

use bytes::Bytes;
use event_aggregator::{
    grpc::ContractCodec,
    proto::{
        incoming,
        v1::{
            BatchGetEventsRequest, Event, EventKey, GetStatsRequest, ListEventsRequest,
            PublishRequest, PublishResponse, event::Content,
        },
    },
};
use prost_types::{ListValue, Struct, Timestamp, Value, value::Kind};
use tonic::{Status, codegen::http::uri::PathAndQuery};

use crate::harness::*;

on_both_stores!(
    every_bad_field_is_named,
    all_faults_are_told_at_once,
    nothing_of_an_invalid_request_is_stored,
    requests_that_hold_too_much_are_refused,
    the_largest_names_and_payloads_are_taken,
    reads_refuse_bad_arguments,
    many_faults_do_not_overflow_the_answer,
    what_cannot_be_read_is_refused_like_the_rest,
);

fn with_struct(key: &str, kind: Option<Kind>) -> Event {
    let fields = [(key.to_owned(), Value { kind })].into();
    Event { content: Some(Content::Payload(Struct { fields })), ..event("t", "1") }
}

fn at(seconds: i64, nanos: i32) -> Event {
    Event { timestamp: Some(Timestamp { seconds, nanos }), ..event("t", "1") }
}

fn nested_list(depth: usize) -> Kind {
    (0..depth).fold(Kind::NullValue(0), |kind, _| {
        Kind::ListValue(ListValue { values: vec![Value { kind: Some(kind) }] })
    })
}

async fn every_bad_field_is_named(backend: Backend) {
    let server = TestServer::start(backend).await;
    let mut client = server.client().await;
    let long = "x".repeat(256);
    let large = format!(r#"{{"x":"{}"}}"#, "x".repeat(1 << 20));
    let deep = format!(r#"{{"x":{}{}}}"#, "[".repeat(24), "]".repeat(24));
    let text = |payload: &str| event_with("t", "1", payload);
    let number = |number| with_struct("n", Some(Kind::NumberValue(number)));
    let string = |string: &str| with_struct("s", Some(Kind::StringValue(string.to_owned())));
    let cases: Vec<(Event, &str)> = vec![
        (event("", "1"), "topic"),
        (event(&long, "1"), "topic"),
        (event(" t", "1"), "topic"),
        (event("t\u{2003}", "1"), "topic"),
        (event("a\0b", "1"), "topic"),
        (event("a\u{85}b", "1"), "topic"),
        (event("t", ""), "event_id"),
        (event("t", &long), "event_id"),
        (event("t", "1\n"), "event_id"),
        (event("t", "\u{7f}"), "event_id"),
        (Event { source: String::new(), ..event("t", "1") }, "source"),
        (Event { source: long.clone(), ..event("t", "1") }, "source"),
        (Event { source: "\t".into(), ..event("t", "1") }, "source"),
        (at(0, -1), "timestamp.nanos"),
        (at(0, 1_000_000_000), "timestamp.nanos"),
        (at(-62_135_596_801, 0), "timestamp"),
        (at(253_402_300_800, 0), "timestamp"),
        (at(i64::MAX, 0), "timestamp"),
        (at(i64::MAX / 1_000_000, 999_999_999), "timestamp"),
        (at(i64::MIN, 0), "timestamp"),
        (text(""), "payload_json"),
        (text("[]"), "payload_json"),
        (text("null"), "payload_json"),
        (text("\"x\""), "payload_json"),
        (text("{\"a\":1"), "payload_json"),
        (text("{\"a\":1}{}"), "payload_json"),
        (text("{'a':1}"), "payload_json"),
        (text("{\"a\":01}"), "payload_json"),
        (text("{\"a\":NaN}"), "payload_json"),
        (text("{\"a\":1,}"), "payload_json"),
        (text("{\"a\":1} // x"), "payload_json"),
        (text("{\"a\":1e400}"), "payload_json"),
        (text("{\"a\":1e-400}"), "payload_json"),
        (text("{\"a\":0e-20000}"), "payload_json"),
        (text("{\"a\":\"\\u0000\"}"), "payload_json"),
        (text("{\"a\":\"\0\"}"), "payload_json"),
        (text("{\"\\u0000\":1}"), "payload_json"),
        (text("{\"a\":\"\\ud800\"}"), "payload_json"),
        (text("{\"a\":\"\\udc00\\ud800\"}"), "payload_json"),
        (text(&deep), "payload_json"),
        (text(&large), "payload_json"),
        (number(f64::NAN), "payload"),
        (number(f64::INFINITY), "payload"),
        (number(f64::NEG_INFINITY), "payload"),
        (number(9_007_199_254_740_994.0), "payload"),
        (number(1e300), "payload"),
        (string("a\0b"), "payload"),
        (with_struct("\0", Some(Kind::NullValue(0))), "payload"),
        (with_struct("none", None), "payload"),
        (with_struct("deep", Some(nested_list(24))), "payload"),
    ];
    for (bad, field) in cases {
        let shown = format!("{bad:?}").chars().take(120).collect::<String>();
        let status = try_publish(&mut client, vec![bad]).await.expect_err(&shown);
        assert_eq!(fields_at_fault(&status), [format!("events[0].{field}")], "{shown}");
    }
    assert_eq!(counters(&mut client).await, [0; 4]);
    assert_eq!(server.stored().await, 0);
}

async fn all_faults_are_told_at_once(backend: Backend) {
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

async fn nothing_of_an_invalid_request_is_stored(backend: Backend) {
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

async fn requests_that_hold_too_much_are_refused(backend: Backend) {
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

async fn the_largest_names_and_payloads_are_taken(backend: Backend) {
    let server = TestServer::start(backend).await;
    let mut client = server.client().await;
    // Random text, so that no database can make it small.
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

async fn reads_refuse_bad_arguments(backend: Backend) {
    let server = TestServer::start(backend).await;
    let mut client = server.client().await;
    let time = |seconds| Some(Timestamp { seconds, nanos: 0 });
    let list = ListEventsRequest::default;
    for (request, fields) in [
        (ListEventsRequest { page_size: -1, ..list() }, vec!["page_size"]),
        (ListEventsRequest { topic: "a\0".into(), ..list() }, vec!["topic"]),
        (
            ListEventsRequest { source: " ".into(), start_time: time(i64::MAX), ..list() },
            vec!["source", "start_time"],
        ),
        (ListEventsRequest { start_time: time(2), end_time: time(1), ..list() }, vec!["end_time"]),
        (
            ListEventsRequest { order: 9, payload_format: 9, ..list() },
            vec!["order", "payload_format"],
        ),
        (ListEventsRequest { page_token: "x".into(), ..list() }, vec!["page_token"]),
    ] {
        let status = client.list_events(request).await.expect_err("bad");
        assert_eq!(fields_at_fault(&status), fields);
    }
    let request = GetStatsRequest { topic: "\n".into(), max_topics: -1 };
    let status = client.get_stats(request).await.expect_err("bad");
    assert_eq!(fields_at_fault(&status), ["topic", "max_topics"]);

    let key = |topic: &str, id: &str| EventKey { topic: topic.into(), event_id: id.into() };
    for (keys, fields) in [
        (vec![], vec!["keys"]),
        (vec![key("t", "1"); 1_001], vec!["keys"]),
        (vec![key("t", "1"), key("", "\0")], vec!["keys[1].topic", "keys[1].event_id"]),
    ] {
        let request = BatchGetEventsRequest { keys, ..Default::default() };
        let status = client.batch_get_events(request).await.expect_err("bad");
        assert_eq!(fields_at_fault(&status), fields);
    }
}

async fn many_faults_do_not_overflow_the_answer(backend: Backend) {
    let server = TestServer::start(backend).await;
    let mut client = server.client().await;
    let empty = Event { content: None, ..Event::default() };
    let number = with_struct("n", Some(Kind::NumberValue(1e300)));
    for (bad, faults) in [(empty, 3_000), (number, 1_000), (at(0, -1), 1_000)] {
        let status = try_publish(&mut client, vec![bad; 1_000]).await.expect_err("bad");
        assert_eq!(fields_at_fault(&status).len(), 20);
        let more = format!("and {} more", faults - 1);
        assert!(status.message().contains(&more), "{}", status.message());
        // What gRPC clients take by default, in base64.
        assert!((status.details().len() + status.message().len()) * 4 / 3 < 7 * 1_024);
    }
}

/// Calls Publish with a message of another type.
async fn publish_message(server: &TestServer, message: impl prost::Message + 'static) -> Status {
    let mut client = tonic::client::Grpc::new(channel_to(server.address).await);
    client.ready().await.expect("connected");
    let path = PathAndQuery::from_static("/event_aggregator.v1.EventAggregatorService/Publish");
    let codec: ContractCodec<_, PublishResponse> = ContractCodec::default();
    client.unary(tonic::Request::new(message), path, codec).await.expect_err("refused")
}

async fn what_cannot_be_read_is_refused_like_the_rest(backend: Backend) {
    let server = TestServer::start(backend).await;
    let mut client = server.client().await;
    let deep = with_struct("deep", Some(nested_list(60)));
    let status = try_publish(&mut client, vec![deep]).await.expect_err("too deep");
    assert_eq!(fields_at_fault(&status), ["events[0].payload"]);

    #[derive(Clone, PartialEq, prost::Message)]
    struct Another {
        #[prost(int64, tag = "1")]
        events: i64,
    }
    let status = publish_message(&server, Another { events: 1 }).await;
    assert_eq!(fields_at_fault(&status), ["message"]);

    let latin1 = || Bytes::from_static(b"\xfc");
    let event = incoming::Event {
        topic: latin1(),
        event_id: latin1(),
        source: latin1(),
        content: Some(incoming::event::Content::PayloadJson(latin1())),
        ..Default::default()
    };
    let request = incoming::PublishRequest { events: vec![event], allow_partial: false };
    let status = publish_message(&server, request).await;
    let fields = ["topic", "event_id", "source", "payload_json"];
    assert_eq!(fields_at_fault(&status), fields.map(|field| format!("events[0].{field}")));

    let status = try_publish(&mut client, vec![Event::default(); 5_000]).await.expect_err("items");
    assert_eq!(fields_at_fault(&status), ["message"]);
    assert_eq!(reason(&status), "REQUEST_TOO_LARGE");
    assert_eq!(server.stored().await, 0);
}
