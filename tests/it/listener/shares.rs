//! Each caller's share of the limits, which it cannot exceed at the expense of others.

use std::{
    net::SocketAddr,
    sync::{Arc, atomic::Ordering},
};

use event_aggregator::{
    proto::v1::{
        GetStatsRequest, ListEventsRequest, PayloadFormat, PublishRequest, PublishResult,
        PublishStatus, PublishStreamRequest, SubscribeRequest,
        event_aggregator_service_client::EventAggregatorServiceClient,
    },
    store::sqlite::SqliteStore,
    testing::{
        api::Api,
        edge::Edge,
        grpc,
        limits::{
            CALLER_SHARE, MAX_CALLS, MAX_LISTING_BYTES, MAX_MESSAGE_BYTES, MAX_PAGE_BYTES,
            MAX_PAYLOAD_BYTES, MAX_QUEUE_BYTES, MAX_READING_BYTES, MAX_SCANS,
            MAX_STREAM_REQUESTS_IN_FLIGHT, MAX_SUBSCRIBERS, MAX_WATCHES, QUEUED_EVENT_OVERHEAD,
            READING_STALL_TIMEOUT, SMALL_REQUEST_BYTES, STREAM_IDLE_TIMEOUT,
        },
        metrics::Metrics,
    },
};
use prost::Message;
use testkit::http2::{
    CHECK, Connection, DATA, END_STREAM, HEADERS, REFLECTION, WATCH, begin, begin_as, begin_at,
    frame, message, stream,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    task::JoinSet,
    time::{Instant, sleep},
};
use tonic::{Code, Status};
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};
use tonic_types::StatusExt;

use super::{
    StubServer,
    limits::{assert_rejected_with_retry_delay, begin_calls, connect_from},
};
use crate::{access::Guarded, harness::*};

/// Checks health over every protocol.
async fn assert_healthy(address: SocketAddr) {
    for probe in ["/healthz", "/readyz"] {
        assert_eq!(get(address, probe).await.status, 200, "{probe}");
    }
    let mut health = HealthClient::new(channel_to(address).await);
    health.check(HealthCheckRequest::default()).await.expect("an answer");
}

/// Waits until this many calls of a connection have a response.
async fn until_answered(connection: &mut Connection, calls: usize) {
    let mut answered = std::collections::BTreeSet::new();
    while answered.len() < calls {
        let next = connection.next().await.expect("a frame");
        if next.kind == HEADERS {
            answered.insert(next.stream);
        }
    }
}

async fn assert_unauthenticated_calls_keep_it_healthy(address: SocketAddr) {
    const CHECKS: usize = 520;
    let mut checks = begin_calls(address, CHECKS, |n| begin_at(CHECK, n, 0)).await;
    checks[0].answers().await;
    assert_healthy(address).await;
    let watch = |number: u32| match number % 4 {
        1 => [begin_at(WATCH, number, 0), message(number, &[], END_STREAM)].concat(),
        _ => begin_at(REFLECTION, number, 0),
    };
    let watches = begin_calls(address, MAX_WATCHES, watch).await;
    let mut health = HealthClient::new(channel_to(address).await);
    let refused = loop {
        if let Err(status) = health.watch(HealthCheckRequest::default()).await {
            break status;
        }
    };
    assert_rejected_with_retry_delay(&refused, "TOO_MANY_CALLS");
    assert_healthy(address).await;
    drop(watches);
    // Unfinished calls time out.
    let mut late = Connection::open(address).await;
    late.send(&begin_at(CHECK, stream(0), 0)).await;
    late.send(&begin_at(WATCH, stream(1), 0)).await;
    until_answered(&mut late, 2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn unauthenticated_calls_keep_an_open_service_healthy() {
    let server = TestServer::start(Backend::Sqlite).await;
    assert_unauthenticated_calls_keep_it_healthy(server.address).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn unauthenticated_calls_keep_a_guarded_service_healthy() {
    let guarded = Guarded::start(Backend::Sqlite).await;
    assert_unauthenticated_calls_keep_it_healthy(guarded.server.address).await;
    // Rejected calls with unread responses do not count.
    let address = guarded.server.address;
    let mut unread = Vec::new();
    for _ in 0..MAX_CALLS / 1_024 {
        let mut connection = Connection::open_without_window(address).await;
        for n in 0..1_000 {
            connection.send(&begin_at("/stats", stream(n), END_STREAM)).await;
        }
        connection.answers().await;
        unread.push(connection);
    }
    let mut root = guarded.caller("root").await;
    root.get_stats(GetStatsRequest::default()).await.expect("an answer");
    assert_healthy(address).await;
}

/// Asserts that a caller used up its share.
#[track_caller]
fn assert_share_is_used(status: &Status, reason: &str) {
    assert_rejected_with_retry_delay(status, reason);
    assert!(status.message().contains("per caller"), "{}", status.message());
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_of_one_identity_leave_calls_to_others() {
    let guarded = Guarded::start(Backend::Sqlite).await;
    let idle = |stream| begin_as("shop", "PublishStream", stream);
    let _streams = begin_calls(guarded.server.address, MAX_CALLS + 800, idle).await;
    let mut shop = guarded.caller("shop").await;
    let list = ListEventsRequest { topic: "orders".to_owned(), ..ListEventsRequest::default() };
    let refused = loop {
        if let Err(status) = shop.list_events(list.clone()).await {
            break status;
        }
    };
    assert_share_is_used(&refused, "TOO_MANY_CALLS");
    let mut root = guarded.caller("root").await;
    for id in ["1", "2"] {
        let events = vec![event("orders", id)];
        let request = PublishRequest { events, allow_partial: false };
        root.publish(request).await.expect("an answer");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn subscriptions_of_one_identity_leave_some_to_others() {
    let guarded = Guarded::start(Backend::Sqlite).await;
    let subscribe = |stream| {
        let request = frame(DATA, END_STREAM, stream, &[0; 5]);
        [begin_as("reader", "Subscribe", stream), request].concat()
    };
    let _subscriptions = begin_calls(guarded.server.address, MAX_SUBSCRIBERS + 52, subscribe).await;
    let mut reader = guarded.caller("reader").await;
    let refused = loop {
        if let Err(status) = reader.subscribe(SubscribeRequest::default()).await {
            break status;
        }
    };
    assert_share_is_used(&refused, "TOO_MANY_SUBSCRIBERS");
    let mut root = guarded.caller("root").await;
    root.subscribe(SubscribeRequest::default()).await.expect("a subscription");
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_of_one_identity_leave_permits_to_others_and_time_out() {
    const MESSAGES: usize = MAX_READING_BYTES / MAX_MESSAGE_BYTES + 1;
    let guarded = Guarded::start(Backend::Sqlite).await;
    let mut begun = Connection::open(guarded.server.address).await;
    let prefix = [&[0][..], &(MAX_MESSAGE_BYTES as u32).to_be_bytes()].concat();
    for n in 0..MESSAGES {
        begun.send(&begin_as("shop", "Publish", stream(n))).await;
        begun.send(&frame(DATA, 0, stream(n), &prefix)).await;
    }
    let mut root = guarded.caller("root").await;
    let payload = format!(r#"{{"data":"{}"}}"#, "x".repeat(SMALL_REQUEST_BYTES * 2));
    let events = vec![event_with("orders", "1", &payload)];
    let publishing =
        tokio::spawn(
            async move { root.publish(PublishRequest { events, allow_partial: false }).await },
        );
    // They are read as long as data arrives.
    while !publishing.is_finished() {
        for n in 0..MESSAGES {
            begun.send(&frame(DATA, 0, stream(n), b"x")).await;
        }
        sleep(READING_STALL_TIMEOUT / 20).await;
    }
    publishing.await.expect("no panic").expect("an answer");
    let answers = begun.answers().await;
    assert!(answers.iter().all(|answer| answer.kind != HEADERS), "others went first");
    until_answered(&mut begun, MAX_READING_BYTES / MAX_MESSAGE_BYTES / CALLER_SHARE).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn responses_of_one_identity_leave_permits_to_others() {
    let guarded = Guarded::start(Backend::Sqlite).await;
    let mut root = guarded.caller("root").await;
    let payload = format!(r#"{{"data":"{}"}}"#, "x".repeat(MAX_PAGE_BYTES / 3 - 100));
    for id in ["1", "2", "3"] {
        let events = vec![event_with("orders", id, &payload)];
        let request = PublishRequest { events, allow_partial: false };
        root.publish(request).await.expect("an answer");
    }
    let list = ListEventsRequest {
        payload_format: PayloadFormat::Json.into(),
        ..ListEventsRequest::default()
    };
    let mut unread = Connection::open_without_window(guarded.server.address).await;
    for n in 0..MAX_LISTING_BYTES / MAX_PAGE_BYTES * 2 {
        let request = message(stream(n), &list.encode_to_vec(), END_STREAM);
        unread.send(&[begin_as("reader", "ListEvents", stream(n)), request].concat()).await;
    }
    let mut reader = guarded.caller("reader").await;
    let refused = loop {
        if let Err(status) = reader.list_events(list.clone()).await {
            break status;
        }
    };
    assert_share_is_used(&refused, "TOO_MANY_ANSWERS");
    for _ in 0..3 {
        let page = root.list_events(list.clone()).await.expect("a large answer").into_inner();
        assert_eq!(page.events.len(), 3);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn listings_by_source_wait_for_their_turn() {
    let server = StubServer::start().await;
    let mut client = connect_to(server.address).await;
    publish(&mut client, vec![event("t", "1")]).await;
    server.hang(true);
    let mut listings = JoinSet::new();
    for _ in 0..24 {
        let mut client = client.clone();
        let list = ListEventsRequest { source: "none".to_owned(), ..ListEventsRequest::default() };
        listings.spawn(async move { client.list_events(list).await });
    }
    testkit::wait_until_async(async || server.store.scans.load(Ordering::Relaxed) > 0).await;
    for _ in 0..10 {
        client.get_stats(GetStatsRequest::default()).await.expect("an answer");
        client.list_events(ListEventsRequest::default()).await.expect("an answer");
        assert_eq!(server.store.scans.load(Ordering::Relaxed), MAX_SCANS / CALLER_SHARE);
    }
    server.hang(false);
    while let Some(listed) = listings.join_next().await {
        listed.expect("no panic").expect("an answer");
    }
}

#[tokio::test(start_paused = true)]
async fn idle_publish_stream_is_closed_with_a_reason() {
    let folder = tempfile::tempdir().expect("temporary folder");
    let store = SqliteStore::open(&folder.path().join("events.db")).expect("open");
    let api = Api::start(Arc::new(store), Metrics::default());
    let (_, health) = tonic_health::server::health_reporter();
    let services = grpc::services(&api, &Edge::new(&api), health).expect("services");
    let mut client = EventAggregatorServiceClient::new(services);
    let begun = Instant::now();
    let answers = client.publish_stream(tokio_stream::pending()).await.expect("a stream");
    let ended = answers.into_inner().message().await.expect_err("an end");
    assert!(begun.elapsed() >= STREAM_IDLE_TIMEOUT);
    assert_eq!((ended.code(), &*reason(&ended)), (Code::Unavailable, "STREAM_IDLE"));
    assert!(ended.get_details_retry_info().is_some());
}

async fn costly_duplicates_keep_order_and_do_not_block_others(backend: Backend) {
    use PublishStatus::{Accepted, Conflict, Duplicate};
    let request = |events| PublishRequest { events, allow_partial: false };
    const LARGE: usize = 40;
    let guarded = Guarded::start(backend).await;
    let (mut root, mut shop) = (guarded.caller("root").await, guarded.caller("shop").await);
    let large = format!(r#"{{"x":"{}"}}"#, "x".repeat(1_000_000));
    let id = |n: usize| n.to_string();
    for n in 0..LARGE {
        root.publish(request(vec![event_with("orders", &id(n), &large)])).await.expect("stored");
    }
    // One request has duplicates, those around it do not.
    let repeats = (0..LARGE).map(|n| event("orders", &id(n))).collect();
    let requests = [
        vec![event_with("orders", "a", r#"{"a":1}"#)],
        repeats,
        vec![event_with("orders", "a", r#"{"a":2}"#), event("orders", "b")],
        vec![event("orders", "b"), event_with("orders", "a", r#"{"a":1}"#)],
    ];
    let requests =
        requests.map(|events| PublishStreamRequest { events, ..PublishStreamRequest::default() });
    let mut answers =
        shop.publish_stream(tokio_stream::iter(requests)).await.expect("a stream").into_inner();
    let first = answers.message().await.expect("an answer").expect("one");
    assert_eq!(first.unique_processed, 1);
    let repeating = tokio::spawn(async move {
        let mut found = Vec::new();
        while let Some(answer) = answers.message().await.expect("an answer") {
            found.push(answer.results.iter().map(PublishResult::status).collect::<Vec<_>>());
        }
        found
    });
    // Another caller waits for at most one part, although it publishes to the same topic.
    for n in 0..3 {
        let other = vec![event("orders", &format!("other-{n}"))];
        root.publish(request(other)).await.expect("an answer");
        assert!(!repeating.is_finished());
    }
    let found = repeating.await.expect("no panic");
    assert_eq!(found[0], [Conflict; LARGE]);
    assert_eq!(found[1..], [vec![Conflict, Accepted], vec![Duplicate, Duplicate]]);
}

crate::conformance::on_both_stores!(costly_duplicates_keep_order_and_do_not_block_others,);

#[tokio::test(flavor = "multi_thread")]
async fn events_of_one_address_leave_queue_capacity_to_others() {
    let server = StubServer::start().await;
    server.hang(true);
    let mut client = connect_to(server.address).await;
    let payload = format!(r#"{{"data":"{}"}}"#, "x".repeat(MAX_PAYLOAD_BYTES - 100));
    let mut waiting = JoinSet::new();
    let refused = loop {
        let n = waiting.len();
        let events = (0..3).map(|id| event_with("t", &format!("{n}-{id}"), &payload)).collect();
        let request = PublishRequest { events, allow_partial: false };
        let mut publishing = client.clone();
        let mut publishing = Box::pin(async move { publishing.publish(request).await });
        let queued = server.metric("event_aggregator_queue_bytes").await;
        tokio::select! {
            answer = &mut publishing => break answer.expect_err("the store takes nothing"),
            () = until_more(&server, queued) => { waiting.spawn(publishing); }
        }
    };
    assert_rejected_with_retry_delay(&refused, "QUEUE_FULL");
    let queued = server.metric("event_aggregator_queue_bytes").await;
    assert!(queued <= (MAX_QUEUE_BYTES / CALLER_SHARE) as f64, "{queued}");
    let other = publish_from_elsewhere(&server, queued).await;
    server.hang(false);
    assert_published(other).await;
    while let Some(answer) = waiting.join_next().await {
        answer.expect("no panic").expect("an answer");
    }
    client.get_stats(GetStatsRequest::default()).await.expect("an answer");
}

/// Waits until the queue has more bytes than this.
async fn until_more(server: &StubServer, queued: f64) {
    while server.metric("event_aggregator_queue_bytes").await <= queued {}
}

/// Publishes from another address while the queue has this many bytes. Returns once the event is
/// queued.
async fn publish_from_elsewhere(server: &StubServer, queued: f64) -> TcpStream {
    let mut other = connect_from(2, server.address).await;
    let body = r#"{"topic":"t","event_id":"other","source":"s"}"#;
    let head = "POST /publish HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json";
    let length = body.len();
    let request = format!("{head}\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{body}");
    other.write_all(request.as_bytes()).await.expect("sent");
    let mut refusal = [0; 12];
    tokio::select! {
        () = until_more(server, queued) => other,
        _ = other.peek(&mut refusal) => panic!("answered: {}", String::from_utf8_lossy(&refusal)),
    }
}

async fn assert_published(mut connection: TcpStream) {
    let mut answer = String::new();
    connection.read_to_string(&mut answer).await.expect("an answer");
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn small_requests_of_one_address_leave_lane_capacity_to_others() {
    const STREAMS: usize = 100;
    let server = StubServer::start().await;
    server.hang(true);
    let mut small = Connection::open(server.address).await;
    small.acknowledge().await;
    for n in 0..STREAMS {
        small.send(&begin("PublishStream", stream(n), 0)).await;
        for id in 0..MAX_STREAM_REQUESTS_IN_FLIGHT {
            let events = vec![event("t", &format!("{n}-{id}"))];
            let request = PublishStreamRequest { events, request_id: String::new() };
            small.send(&message(stream(n), &request.encode_to_vec(), 0)).await;
        }
    }
    let least = (STREAMS * MAX_STREAM_REQUESTS_IN_FLIGHT * QUEUED_EVENT_OVERHEAD) as f64;
    until_more(&server, least).await;
    let queued = server.metric("event_aggregator_queue_bytes").await;
    let other = publish_from_elsewhere(&server, queued).await;
    server.hang(false);
    assert_published(other).await;
}
