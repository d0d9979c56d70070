//! Calls that need no credentials do not use up the limits of authenticated callers.

use std::time::Instant;

use event_aggregator::testing::limits::{DRAIN_TIMEOUT, WATCHES};
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};
use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;

use super::{
    StrangeServer,
    frames::{Connection, DATA, END_STREAM, begin_at, frame, message, stream},
    room::{assert_rejected_with_retry_delay, begin_calls, until_metric},
};
use crate::harness::*;

const CHECK: &str = "/grpc.health.v1.Health/Check";
const WATCH: &str = "/grpc.health.v1.Health/Watch";
const REFLECTION: &str = "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo";

#[tokio::test(flavor = "multi_thread")]
async fn health_watches_do_not_use_up_call_limits() {
    let server = TestServer::start(Backend::Sqlite).await;
    let watch = |number| match number % 4 {
        1 => [begin_at(WATCH, number, 0), message(number, &[], END_STREAM)].concat(),
        _ => begin_at(REFLECTION, number, 0),
    };
    let connections = begin_calls(server.address, WATCHES, watch).await;
    let mut health = HealthClient::new(channel_to(server.address).await);
    let refused = loop {
        if let Err(status) = health.watch(HealthCheckRequest::default()).await {
            break status;
        }
    };
    assert_rejected_with_retry_delay(&refused, "TOO_MANY_CALLS");
    health.check(HealthCheckRequest::default()).await.expect("an answer");
    publish(&mut server.client().await, vec![event("t", "1")]).await;
    // Only this call is counted.
    until_metric(server.address, "event_aggregator_calls_in_progress", 1).await;
    drop(connections);
    while health.watch(HealthCheckRequest::default()).await.is_err() {}
}

#[tokio::test(flavor = "multi_thread")]
async fn unauthenticated_large_messages_are_rejected_at_once() {
    let server = TestServer::start(Backend::Sqlite).await;
    let mut connection = Connection::open(server.address).await;
    let announced = [&[0][..], &(4_u32 << 20).to_be_bytes()].concat();
    for (n, path) in [CHECK, WATCH, REFLECTION].into_iter().enumerate() {
        connection.send(&begin_at(path, stream(n), 0)).await;
        connection.send(&frame(DATA, 0, stream(n), &announced)).await;
    }
    let mut refused = Vec::new();
    while refused.len() < 3 {
        let answer = connection.next().await.expect("an answer");
        // The last frame of a call ends its stream.
        if answer.stream > 0 && !refused.contains(&answer.stream) {
            refused.push(answer.stream);
        }
        until_metric(server.address, "event_aggregator_reading_bytes", 0).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn reflection_does_not_delay_shutdown() {
    let server = StrangeServer::start().await;
    let mut client = ServerReflectionClient::new(channel_to(server.address).await);
    let asking = client.server_reflection_info(tokio_stream::pending()).await;
    let mut answers = asking.expect("a stream").into_inner();
    let begun = Instant::now();
    let _ = server.stop.send(());
    server.running.await.expect("no panic").expect("a good end");
    assert!(begun.elapsed() < DRAIN_TIMEOUT, "{:?}", begun.elapsed());
    assert!(answers.message().await.expect("a good end").is_none());
}
