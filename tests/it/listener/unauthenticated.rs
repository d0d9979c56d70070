//! Calls that need no credentials do not use up the limits of authenticated callers.

use std::{convert::Infallible, future::poll_fn, time::Instant};

use bytes::Bytes;
use event_aggregator::testing::limits::{DRAIN_TIMEOUT, MAX_WATCHES, READING_STALL_TIMEOUT};
use http_body_util::{BodyExt, StreamBody};
use testkit::http2::{CHECK, END_STREAM, REFLECTION, WATCH, begin_at, message};
use tokio_stream::StreamExt;
use tonic::{
    Code, Status,
    body::Body,
    codegen::{Service, http},
    transport::Channel,
};
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};
use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;

use super::{
    StubServer,
    limits::{assert_rejected_with_retry_delay, begin_calls},
};
use crate::harness::*;

#[tokio::test(flavor = "multi_thread")]
async fn health_watches_do_not_use_up_call_limits() {
    let server = TestServer::start(Backend::Sqlite).await;
    let watch = |number| match number % 4 {
        1 => [begin_at(WATCH, number, 0), message(number, &[], END_STREAM)].concat(),
        _ => begin_at(REFLECTION, number, 0),
    };
    let connections = begin_calls(server.address, MAX_WATCHES, watch).await;
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

/// The status of a call that announces a message of this length and does not send it. It has no response
/// messages.
async fn announce(mut channel: Channel, path: &'static str, length: u32) -> Status {
    let announced = [&[0][..], &length.to_be_bytes()].concat();
    let announced = Ok::<_, Infallible>(http_body::Frame::data(Bytes::from(announced)));
    let frames = tokio_stream::once(announced).chain(tokio_stream::pending());
    let request = http::Request::post(path)
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(Body::new(StreamBody::new(frames)))
        .expect("a request");
    poll_fn(|context| channel.poll_ready(context)).await.expect("ready");
    let (head, body) = channel.call(request).await.expect("a response").into_parts();
    let body = body.collect().await.expect("an end");
    let trailers = body.trailers().cloned().unwrap_or_default();
    assert!(body.to_bytes().is_empty(), "{path}");
    let status = Status::from_header_map(&head.headers);
    status.or_else(|| Status::from_header_map(&trailers)).expect("a status")
}

#[tokio::test(flavor = "multi_thread")]
async fn unauthenticated_large_messages_are_rejected_at_once() {
    const LARGE: u32 = 4 << 20;
    let server = TestServer::start(Backend::Sqlite).await;
    let channel = channel_to(server.address).await;
    // The reflection service of tonic ends a stream that it cannot read, without a reason.
    for (path, code) in
        [(CHECK, Code::OutOfRange), (WATCH, Code::OutOfRange), (REFLECTION, Code::Ok)]
    {
        let begun = Instant::now();
        let status = announce(channel.clone(), path, LARGE).await;
        assert_eq!(status.code(), code, "{path}: {status:?}");
        let is_told = status.message().contains(&LARGE.to_string());
        assert_eq!(is_told, code == Code::OutOfRange, "{path}: {status:?}");
        // Far less than the wait for the rest of a message.
        assert!(begun.elapsed() < READING_STALL_TIMEOUT / 2, "{path}: {:?}", begun.elapsed());
        assert_eq!(metric(&server, "event_aggregator_reading_bytes").await, 0.0, "{path}");
    }
    // Other calls of the connection succeed.
    let mut health = HealthClient::new(channel);
    health.check(HealthCheckRequest::default()).await.expect("serving");
    publish(&mut server.client().await, vec![event("t", "1")]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn reflection_does_not_delay_shutdown() {
    let server = StubServer::start().await;
    let mut client = ServerReflectionClient::new(channel_to(server.address).await);
    let asking = client.server_reflection_info(tokio_stream::pending()).await;
    let mut answers = asking.expect("a stream").into_inner();
    let begun = Instant::now();
    let _ = server.stop.send(());
    server.running.await.expect("no panic").expect("a good end");
    assert!(begun.elapsed() < DRAIN_TIMEOUT, "{:?}", begun.elapsed());
    assert!(answers.message().await.expect("a good end").is_none());
}
