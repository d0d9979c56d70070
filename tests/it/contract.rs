//! Reflection and health, as used by tools.

use prost::Message;
use prost_types::FileDescriptorProto;
use tokio_stream::StreamExt;
use tonic::Code;
use tonic_health::pb::{
    HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient,
};
use tonic_reflection::pb::{v1, v1alpha};

use crate::harness::*;

const SERVICE: &str = "event_aggregator.v1.EventAggregatorService";

#[tokio::test]
async fn reflection_includes_comments() {
    use v1::{
        ServerReflectionRequest, server_reflection_client::ServerReflectionClient,
        server_reflection_request::MessageRequest, server_reflection_response::MessageResponse,
    };
    let server = TestServer::start(Backend::Sqlite).await;
    let mut client = ServerReflectionClient::new(channel_to(server.address).await);
    let ask =
        |request| ServerReflectionRequest { host: String::new(), message_request: Some(request) };
    let requests = vec![
        ask(MessageRequest::ListServices(String::new())),
        ask(MessageRequest::FileContainingSymbol(SERVICE.into())),
        ask(MessageRequest::FileContainingSymbol("google.rpc.BadRequest".into())),
    ];
    let answers = client.server_reflection_info(tokio_stream::iter(requests)).await.expect("call");
    let answers: Vec<_> = answers
        .into_inner()
        .map(|answer| answer.expect("answer").message_response.expect("response"))
        .collect()
        .await;
    let MessageResponse::ListServicesResponse(services) = &answers[0] else {
        panic!("{:?}", answers[0]);
    };
    assert!(services.service.iter().any(|service| service.name == SERVICE));
    let MessageResponse::FileDescriptorResponse(files) = &answers[1] else {
        panic!("{:?}", answers[1]);
    };
    let file = FileDescriptorProto::decode(&*files.file_descriptor_proto[0]).expect("descriptor");
    let methods = &file.service[0].method;
    assert_eq!(
        methods.iter().map(|method| method.name()).collect::<Vec<_>>(),
        ["Publish", "PublishStream", "ListEvents", "GetStats", "BatchGetEvents", "Subscribe"]
    );
    let comments = file.source_code_info.expect("comments").location;
    let with_text =
        |text: &str| comments.iter().any(|location| location.leading_comments().contains(text));
    assert!(with_text("Answers after they are durable"));
    assert!(matches!(answers[2], MessageResponse::FileDescriptorResponse(_)), "{:?}", answers[2]);
}

#[tokio::test]
async fn reflection_v1alpha_is_served() {
    use v1alpha::{
        ServerReflectionRequest, server_reflection_client::ServerReflectionClient,
        server_reflection_request::MessageRequest,
    };
    let server = TestServer::start(Backend::Sqlite).await;
    let mut client = ServerReflectionClient::new(channel_to(server.address).await);
    let request = ServerReflectionRequest {
        host: String::new(),
        message_request: Some(MessageRequest::ListServices(String::new())),
    };
    let answers = client.server_reflection_info(tokio_stream::iter(vec![request])).await;
    let answer = answers.expect("call").into_inner().next().await.expect("one").expect("answer");
    assert!(format!("{answer:?}").contains(SERVICE));
}

#[tokio::test]
async fn health_covers_the_service_and_the_server() {
    for backend in [Backend::Sqlite, Backend::Postgres] {
        let server = TestServer::start(backend).await;
        let mut client = HealthClient::new(channel_to(server.address).await);
        for service in ["", SERVICE] {
            let request = HealthCheckRequest { service: service.into() };
            let mut updates = client.watch(request).await.expect("watch").into_inner();
            loop {
                let update = updates.message().await.expect("update").expect("open");
                if update.status() == ServingStatus::Serving {
                    break;
                }
            }
        }
        let request = HealthCheckRequest { service: "unknown".into() };
        assert_eq!(client.check(request).await.expect_err("unknown").code(), Code::NotFound);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn health_watch_reports_shutdown_without_delaying_it() {
    let server = TestServer::start(Backend::Sqlite).await;
    let mut client = HealthClient::new(channel_to(server.address).await);
    let request = HealthCheckRequest { service: SERVICE.into() };
    let mut updates = client.watch(request).await.expect("watch").into_inner();
    let first = updates.message().await.expect("update").expect("open");
    assert_eq!(first.status(), ServingStatus::Serving);
    let stopping = tokio::spawn(server.stop());
    let last = updates.message().await.expect("update").expect("open");
    assert_eq!(last.status(), ServingStatus::NotServing);
    // Ended by the service before the drain timeout.
    assert!(updates.message().await.expect("a proper end").is_none());
    stopping.await.expect("stopped");
}
