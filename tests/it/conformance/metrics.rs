//! `GET /metrics`, and its use in dashboards and alerts.

use std::collections::BTreeMap;

use event_aggregator::proto::v1::{PublishRequest, PublishStreamRequest, SubscribeRequest};
use tonic::{Code, codegen::http::uri::PathAndQuery};

use crate::harness::*;

on_both_stores!(
    calls_are_counted_by_status_code,
    events_are_counted_by_outcome,
    active_subscribers_are_counted,
    caller_input_never_becomes_a_label,
);

/// The samples by name and labels.
async fn samples(server: &TestServer) -> BTreeMap<String, f64> {
    let answer = get(server, "/metrics").await;
    assert_eq!(answer.status, 200);
    let openmetrics = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    assert_eq!(answer.header("content-type"), Some(openmetrics));
    assert!(answer.body.ends_with("# EOF\n"));
    let lines = answer.body.lines().filter(|line| !line.starts_with('#'));
    let samples = lines.map(|line| line.rsplit_once(' ').expect("a sample"));
    samples.map(|(name, value)| (name.to_owned(), value.parse().expect("a number"))).collect()
}

fn labels(kind: &str, method: &str) -> String {
    let service = "event_aggregator.v1.EventAggregatorService";
    format!(r#"grpc_type="{kind}",grpc_service="{service}",grpc_method="{method}""#)
}

fn handled(kind: &str, method: &str, code: &str) -> String {
    format!(r#"grpc_server_handled_total{{{},grpc_code="{code}"}}"#, labels(kind, method))
}

async fn calls_are_counted_by_status_code(backend: Backend) {
    let server = TestServer::start(backend).await;
    let mut client = server.client().await;
    publish(&mut client, vec![event("t", "1")]).await;
    try_publish(&mut client, vec![event("", "1")]).await.expect_err("no topic");
    let requests = (0..3).map(|id| PublishStreamRequest {
        events: vec![event("t", &id.to_string())],
        ..PublishStreamRequest::default()
    });
    let stream = client.publish_stream(tokio_stream::iter(requests)).await.expect("stream");
    let mut answers = stream.into_inner();
    while answers.message().await.expect("an answer").is_some() {}

    let samples = samples(&server).await;
    assert_eq!(samples[&handled("unary", "Publish", "OK")], 1.0);
    assert_eq!(samples[&handled("unary", "Publish", "InvalidArgument")], 1.0);
    assert_eq!(samples[&handled("bidi_stream", "PublishStream", "OK")], 1.0);
    let unary = labels("unary", "Publish");
    assert_eq!(samples[&format!("grpc_server_started_total{{{unary}}}")], 2.0);
    assert_eq!(samples[&format!("grpc_server_handling_seconds_count{{{unary}}}")], 2.0);
    let stream = labels("bidi_stream", "PublishStream");
    assert_eq!(samples[&format!("grpc_server_msg_received_total{{{stream}}}")], 3.0);
    assert_eq!(samples[&format!("grpc_server_msg_sent_total{{{stream}}}")], 3.0);
}

async fn events_are_counted_by_outcome(backend: Backend) {
    let server = TestServer::start(backend).await;
    let mut client = server.client().await;
    let events =
        vec![event("t", "1"), event("t", "1"), event_with("t", "1", r#"{"n":1}"#), event("", "1")];
    let request = PublishRequest { events, allow_partial: true };
    client.publish(request).await.expect("publish");

    let samples = samples(&server).await;
    for outcome in ["accepted", "duplicate", "conflict", "rejected"] {
        let name = format!(r#"event_aggregator_events_total{{outcome="{outcome}"}}"#);
        assert_eq!(samples[&name], 1.0, "{outcome}");
    }
    assert_eq!(samples["event_aggregator_batch_size_sum"], 3.0);
    assert_eq!(samples["event_aggregator_commit_seconds_count"], 1.0);
    assert_eq!(samples[r#"event_aggregator_queue_depth{lane="0"}"#], 0.0);
    assert_eq!(samples["event_aggregator_queue_bytes"], 0.0);
}

async fn active_subscribers_are_counted(backend: Backend) {
    let server = TestServer::start(backend).await;
    let mut client = server.client().await;
    let subscribers = async || samples(&server).await["event_aggregator_subscribers"];
    let cancelled = handled("server_stream", "Subscribe", "Canceled");
    assert_eq!(subscribers().await, 0.0);
    let stream = client.subscribe(SubscribeRequest::default()).await.expect("subscribe");
    assert_eq!(subscribers().await, 1.0);
    drop(stream);
    while subscribers().await > 0.0 || samples(&server).await[&cancelled] < 1.0 {
        tokio::task::yield_now().await;
    }
}

async fn caller_input_never_becomes_a_label(backend: Backend) {
    let server = TestServer::start(backend).await;
    // The series of this route are there after the first request.
    samples(&server).await;
    let before = samples(&server).await.len();
    publish(&mut server.client().await, vec![event("a-topic", "an-id")]).await;
    let mut client = tonic::client::Grpc::new(channel_to(server.address).await);
    client.ready().await.expect("ready");
    let path = "/event_aggregator.v1.EventAggregatorService/NoSuchMethod";
    let codec = tonic_prost::ProstCodec::<PublishRequest, PublishRequest>::default();
    let request = tonic::Request::new(PublishRequest::default());
    let answer = client.unary(request, PathAndQuery::from_static(path), codec).await;
    assert_eq!(answer.expect_err("no such method").code(), Code::Unimplemented);

    let samples = samples(&server).await;
    // Outcomes and lanes are exported from the start: there are no new series.
    assert_eq!(samples.len(), before);
    let unknown = r#"grpc_type="unary",grpc_service="unknown",grpc_method="unknown""#;
    let unknown = format!(r#"grpc_server_handled_total{{{unknown},grpc_code="Unimplemented"}}"#);
    assert_eq!(samples[&unknown], 1.0);
}
