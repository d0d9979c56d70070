//! Unread responses, and memory that callers can make the service hold: both are bounded and
//! released in the end.

use std::sync::atomic::Ordering;

use event_aggregator::{
    proto::v1::{
        BatchGetEventsRequest, EventKey, GetStatsRequest, ListEventsRequest, PayloadFormat,
        PublishRequest, PublishStreamRequest,
    },
    testing::limits::{
        MAX_LISTING_BYTES, MAX_PAGE_BYTES, MAX_REQUEST_ID_BYTES, MAX_STREAM_REQUESTS_IN_FLIGHT,
        SMALL_REQUEST_BYTES,
    },
};
use prost::Message;
use testkit::http2::{
    Connection, END_STREAM, GOAWAY, WINDOW_UPDATE, begin, frame, message, stream,
};

use super::{StubServer, limits::assert_rejected_with_retry_delay};
use crate::harness::*;

/// An event with a payload of this size.
fn large(id: &str, bytes: usize) -> event_aggregator::proto::v1::Event {
    event_with("t", id, &format!(r#"{{"data":"{}"}}"#, "x".repeat(bytes)))
}

#[tokio::test(flavor = "multi_thread")]
async fn unread_responses_are_bounded_and_discarded() {
    let server = StubServer::start().await;
    let mut client = connect_to(server.address).await;
    for id in ["1", "2", "3"] {
        publish(&mut client, vec![large(id, MAX_PAGE_BYTES / 3 - 100)]).await;
    }
    let list = ListEventsRequest {
        payload_format: PayloadFormat::Json.into(),
        ..ListEventsRequest::default()
    };
    let mut greedy = Connection::open_without_window(server.address).await;
    let calls = MAX_LISTING_BYTES / MAX_PAGE_BYTES + 10;
    for n in 0..calls {
        let request = message(stream(n), &list.encode_to_vec(), END_STREAM);
        greedy.send(&[begin("ListEvents", stream(n), 0), request].concat()).await;
    }
    let refused = loop {
        if let Err(status) = client.list_events(list.clone()).await {
            break status;
        }
    };
    assert_rejected_with_retry_delay(&refused, "TOO_MANY_ANSWERS");
    // Rejected before anything is read for it.
    let reads = server.store.reads.load(Ordering::Relaxed);
    let keys = vec![EventKey { topic: "t".to_owned(), event_id: "1".to_owned() }];
    let look_up = BatchGetEventsRequest { keys, ..BatchGetEventsRequest::default() };
    let (mut lister, mut finder) = (client.clone(), client.clone());
    let (listed, looked_up, page, found) = tokio::join!(
        lister.list_events(list.clone()),
        finder.batch_get_events(look_up),
        get(server.address, "/events"),
        get(server.address, "/events/t/1"),
    );
    assert_rejected_with_retry_delay(&listed.expect_err("refused"), "TOO_MANY_ANSWERS");
    assert_rejected_with_retry_delay(&looked_up.expect_err("refused"), "TOO_MANY_ANSWERS");
    for refused in [page, found] {
        assert_eq!(refused.status, 429, "{refused:?}");
    }
    assert_eq!(server.store.reads.load(Ordering::Relaxed), reads);
    // Other calls continue.
    client.get_stats(GetStatsRequest::default()).await.expect("an answer");
    publish(&mut client, vec![event("t", "4")]).await;

    // The greedy client stays connected, and loses its unread responses.
    greedy.answers().await;
    let staying = tokio::spawn(greedy.stay());
    testkit::wait_until_async(async || server.metric("event_aggregator_answer_bytes").await == 0.0)
        .await;
    let page = client.list_events(list).await.expect("below the limit again").into_inner();
    assert_eq!(page.events.len(), 4);
    assert!(!staying.is_finished());
    assert_eq!(get(server.address, "/events?limit=1").await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn received_requests_release_their_permits() {
    /// Larger than what needs no permit, and smaller than the receive window.
    const LARGE: usize = SMALL_REQUEST_BYTES + (8 << 10);
    let server = StubServer::start().await;
    server.hang(true);
    let mut connection = Connection::open(server.address).await;
    connection.send(&begin("PublishStream", stream(0), 0)).await;
    // As many as may be unanswered; after the last one the stream is not read any further.
    for n in 0..MAX_STREAM_REQUESTS_IN_FLIGHT {
        let bytes = if n + 1 < MAX_STREAM_REQUESTS_IN_FLIGHT { 1 } else { LARGE };
        let events = vec![large(&n.to_string(), bytes)];
        let request = PublishStreamRequest { events, request_id: String::new() };
        connection.send(&message(stream(0), &request.encode_to_vec(), 0)).await;
    }
    while server.metric("event_aggregator_queue_bytes").await < LARGE as f64 {}
    assert_eq!(server.metric("event_aggregator_reading_bytes").await, 0.0);

    // The same for a waiting unary call.
    let mut client = connect_to(server.address).await;
    let request = PublishRequest { events: vec![large("100", LARGE)], allow_partial: false };
    let publishing = tokio::spawn(async move { client.publish(request).await });
    while server.metric("event_aggregator_queue_bytes").await < (LARGE * 2) as f64 {}
    assert_eq!(server.metric("event_aggregator_reading_bytes").await, 0.0);
    server.hang(false);
    publishing.await.expect("no panic").expect("an answer");
}

#[tokio::test(flavor = "multi_thread")]
async fn queue_accounts_for_messages_kept_in_memory() {
    let server = StubServer::start().await;
    server.hang(true);
    let mut client = connect_to(server.address).await;
    // One small event, and one that is rejected for its size.
    let events = vec![event("t", "1"), large("2", 2 << 20)];
    let publishing = tokio::spawn(async move {
        client.publish(PublishRequest { events, allow_partial: true }).await
    });
    while server.metric("event_aggregator_queue_bytes").await < (2 << 20) as f64 {
        assert!(!publishing.is_finished(), "it waits for its commit");
    }
    server.hang(false);
    let answer = publishing.await.expect("no panic").expect("an answer").into_inner();
    assert_eq!((answer.unique_processed, answer.rejected), (1, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn long_request_ids_are_rejected_and_truncated() {
    let server = TestServer::start(Backend::Sqlite).await;
    let mut client = server.client().await;
    let long = "ä".repeat(MAX_REQUEST_ID_BYTES);
    let requests = [(&*long, "1"), ("short", "2")].map(|(request_id, id)| PublishStreamRequest {
        request_id: request_id.to_owned(),
        events: vec![event("t", id)],
    });
    let answers = client.publish_stream(tokio_stream::iter(requests)).await.expect("a stream");
    let mut answers = answers.into_inner();
    let refused = answers.message().await.expect("no error").expect("an answer");
    assert!(long.starts_with(&refused.request_id));
    assert!((MAX_REQUEST_ID_BYTES - 1..=MAX_REQUEST_ID_BYTES).contains(&refused.request_id.len()));
    let error = refused.results[0].error.as_ref().expect("an error");
    assert!(error.message.starts_with("request_id has"), "{}", error.message);
    let taken = answers.message().await.expect("no error").expect("an answer");
    assert_eq!((&*taken.request_id, taken.unique_processed), ("short", 1));
    assert_eq!(server.stored().await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn many_small_requests_wait_during_an_outage() {
    const REQUESTS: usize = 4_000;
    let server = StubServer::start().await;
    server.hang(true);
    let mut connection = Connection::open(server.address).await;
    connection.acknowledge().await;
    connection.send(&begin("PublishStream", stream(0), 0)).await;
    for of in [0, stream(0)] {
        // Space for the responses.
        connection.send(&frame(WINDOW_UPDATE, 0, of, &(1_u32 << 20).to_be_bytes())).await;
    }
    for n in 0..REQUESTS {
        let events = vec![event("t", &n.to_string())];
        let request = PublishStreamRequest { events, request_id: String::new() };
        connection.send(&message(stream(0), &request.encode_to_vec(), 0)).await;
    }
    let answers = connection.answers().await;
    assert!(answers.iter().all(|answer| answer.kind != GOAWAY), "the connection stays open");
    server.hang(false);
    let accepted = r#"event_aggregator_events_total{outcome="accepted"}"#;
    while server.metric(accepted).await < REQUESTS as f64 {}
}
