//! PublishStream: responses in order, per event, until the end.

use event_aggregator::{
    config::Database,
    proto::v1::{Event, PublishStatus::*, PublishStreamRequest, PublishStreamResponse},
};
use tokio::sync::mpsc;
use tokio_stream::{StreamExt, wrappers::ReceiverStream};
use tonic::Code;

use crate::harness::*;

on_both_stores!(
    requests_are_answered_in_order,
    invalid_events_do_not_end_the_stream,
    oversized_request_is_rejected_and_the_stream_continues,
    shutdown_answers_accepted_requests,
);

async fn send(
    server: &TestServer,
    requests: Vec<PublishStreamRequest>,
) -> Vec<PublishStreamResponse> {
    let mut client = server.client().await;
    let responses = client.publish_stream(tokio_stream::iter(requests)).await.expect("stream");
    responses.into_inner().map(|response| response.expect("response")).collect().await
}

fn request(request_id: &str, events: Vec<Event>) -> PublishStreamRequest {
    PublishStreamRequest { request_id: request_id.to_owned(), events }
}

async fn requests_are_answered_in_order(backend: Backend) {
    let server = TestServer::start(backend).await;
    let requests: Vec<_> = (0..300)
        .map(|n| {
            let events = (0..10).map(|m| event(&format!("t{}", m % 3), &format!("{}", n * 5 + m)));
            request(&n.to_string(), events.collect())
        })
        .collect();
    let responses = send(&server, requests).await;
    assert_eq!(responses.len(), 300);
    for (n, response) in responses.iter().enumerate() {
        assert_eq!(response.request_id, n.to_string());
        assert_eq!(response.results.len(), 10);
        assert_eq!(response.received, response.unique_processed + response.duplicate_dropped);
    }
    let unique: i64 = responses.iter().map(|response| response.unique_processed).sum();
    assert_eq!(server.stored().await, unique);
    assert_eq!(counters(&mut server.client().await).await[..2], [3_000, unique]);
}

async fn invalid_events_do_not_end_the_stream(backend: Backend) {
    let server = TestServer::start(backend).await;
    let responses = send(
        &server,
        vec![
            request("", vec![]),
            request("a", vec![event("t", "1"), event("", ""), event("t", "1")]),
            request("b", vec![event_with("t", "2", "not json")]),
            request("c", vec![event("t", "3")]),
        ],
    )
    .await;
    assert_eq!(responses[0], PublishStreamResponse::default());
    let status = |response: &PublishStreamResponse| -> Vec<_> {
        response.results.iter().map(|result| result.status()).collect()
    };
    assert_eq!(status(&responses[1]), [Accepted, Rejected, Duplicate]);
    assert_eq!(status(&responses[2]), [Rejected]);
    assert_eq!(status(&responses[3]), [Accepted]);
    let error = responses[2].results[0].error.as_ref().expect("an error");
    assert!(error.message.starts_with("payload_json"), "{}", error.message);
    assert!(error.details.iter().any(|any| any.type_url.ends_with("google.rpc.BadRequest")));

    let stats = stats(&mut server.client().await).await;
    assert_eq!([stats.received, stats.unique_processed], [3, 2]);
    assert_eq!(stats.since_start.expect("since_start").rejected, 2);
}

async fn oversized_request_is_rejected_and_the_stream_continues(backend: Backend) {
    let server = TestServer::start(backend).await;
    let many = (0..1_001).map(|n| event("t", &n.to_string())).collect();
    let heavy = format!(r#"{{"x":"{}"}}"#, "x".repeat(1_000_000));
    let heavy = (0..5).map(|n| event_with("t", &n.to_string(), &heavy)).collect();
    let requests = vec![
        request("many", many),
        request("heavy", heavy),
        request("fine", vec![event("t", "1")]),
    ];
    let responses = send(&server, requests).await;
    assert_eq!([responses[0].rejected, responses[0].received], [1_001, 0]);
    assert_eq!([responses[1].rejected, responses[1].received], [5, 0]);
    assert_eq!(responses[2].unique_processed, 1);
    assert_eq!(server.stored().await, 1);
}

async fn shutdown_answers_accepted_requests(backend: Backend) {
    let server = TestServer::start(backend).await;
    let mut client = server.client().await;
    let (idle, outgoing) = mpsc::channel(1);
    let nothing = client.publish_stream(ReceiverStream::new(outgoing)).await.expect("stream");
    let (requests, outgoing) = mpsc::channel(1);
    let responses = client.publish_stream(ReceiverStream::new(outgoing)).await.expect("stream");
    let (mut nothing, mut responses) = (nothing.into_inner(), responses.into_inner());
    requests.send(request("a", vec![event("t", "1")])).await.expect("sent");
    let response = responses.message().await.expect("answered").expect("a response");
    assert_eq!(response.unique_processed, 1);

    let held = Held::hold(&server.database).await;
    requests.send(request("b", vec![event("t", "2")])).await.expect("sent");
    let empty = "event_aggregator_queue_bytes 0\n";
    while get(&server, "/metrics").await.body.contains(empty) {}
    let stopped = tokio::spawn(server.stop());
    let end = nothing.message().await.expect_err("there is nothing to answer");
    assert_eq!(reason(&end), "SHUTTING_DOWN");
    held.release().await;
    let response = responses.message().await.expect("answered").expect("a response");
    assert_eq!((&*response.request_id, response.unique_processed), ("b", 1));
    let end = responses.message().await.expect_err("the stream ends");
    assert_eq!(end.code(), Code::Unavailable);
    assert_eq!(reason(&end), "SHUTTING_DOWN");
    drop((idle, nothing, requests, responses, client));
    let server = TestServer::on(stopped.await.expect("stopped")).await;
    assert_eq!(server.stored().await, 2);
}

/// Locks the lanes, bypassing the service, so that nothing can be committed.
enum Held {
    Sqlite(rusqlite::Connection),
    Postgres(tokio_postgres::Client),
}

impl Held {
    async fn hold(database: &TestDatabase) -> Self {
        match &database.url {
            Database::Sqlite(path) => {
                let holder = rusqlite::Connection::open(path).expect("open");
                holder.busy_timeout(std::time::Duration::from_secs(5)).expect("wait");
                holder.execute_batch("BEGIN IMMEDIATE").expect("hold");
                Self::Sqlite(holder)
            }
            Database::Postgres(_) => Self::Postgres(block_lanes(database).await),
        }
    }

    async fn release(self) {
        match self {
            Self::Sqlite(holder) => holder.execute_batch("ROLLBACK").expect("release"),
            Self::Postgres(holder) => holder.batch_execute("ROLLBACK").await.expect("release"),
        }
    }
}
