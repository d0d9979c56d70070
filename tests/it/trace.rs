//! Traces reach a collector, and link a call to the commit it waited for.

use std::sync::{Arc, Mutex};

use event_aggregator::proto::v1::{PublishRequest, PublishStreamRequest};
use opentelemetry_proto::tonic::{
    collector::trace::v1::{
        ExportTraceServiceRequest, ExportTraceServiceResponse,
        trace_service_server::{TraceService, TraceServiceServer},
    },
    trace::v1::Span,
};
use testkit::process::Service;
use tokio::net::TcpListener;
use tonic::{Request, Response, Status, transport::server::TcpIncoming};

use crate::harness::*;

/// A collector that keeps the spans it receives.
#[derive(Clone, Default)]
struct Collector(Arc<Mutex<Vec<Span>>>);

#[tonic::async_trait]
impl TraceService for Collector {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        let resources = request.into_inner().resource_spans.into_iter();
        let spans = resources.flat_map(|resource| resource.scope_spans);
        self.0.lock().expect("lock").extend(spans.flat_map(|scope| scope.spans));
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn call_span_is_linked_to_its_commit() {
    let collector = Collector::default();
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
    let endpoint = format!("http://{}", listener.local_addr().expect("an address"));
    let server = tonic::transport::Server::builder()
        .add_service(TraceServiceServer::new(collector.clone()))
        .serve_with_incoming(TcpIncoming::from(listener));
    tokio::spawn(server);

    let database = TestDatabase::new(Backend::Sqlite).await;
    let mut service = Service::run(
        program()
            .args(["serve", "--listen", "127.0.0.1:0", "--database-url", &database.url_text()])
            .env("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint),
    );
    let trace_id = "0af7651916cd43dd8448eb211c80319c";
    let events = vec![event("t", "1")];
    let mut request = Request::new(PublishRequest { events, allow_partial: false });
    let parent = format!("00-{trace_id}-b7ad6b7169203331-01").parse().expect("text");
    request.metadata_mut().insert("traceparent", parent);
    let mut client = connect_to(service.address).await;
    client.publish(request).await.expect("publish");
    let request = PublishStreamRequest { events: vec![event("t", "2")], ..Default::default() };
    let stream = client.publish_stream(tokio_stream::iter([request])).await.expect("stream");
    let mut answers = stream.into_inner();
    while answers.message().await.expect("an answer").is_some() {}

    // The remaining spans are exported before the exit.
    service.signal("TERM");
    assert_eq!(service.wait(), Some(0));
    let spans = collector.0.lock().expect("lock").clone();
    let span = |name: &str| spans.iter().find(|span| span.name == name).expect(name);
    let call = span("event_aggregator.v1.EventAggregatorService/Publish");
    let hexadecimal: String = call.trace_id.iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(hexadecimal, trace_id);
    assert!(call.attributes.iter().any(|attribute| attribute.key == "rpc.response.status_code"));
    let stream = span("event_aggregator.v1.EventAggregatorService/PublishStream");
    let commits = spans.iter().filter(|span| span.name == "commit");
    let waited: Vec<_> = commits.flat_map(|commit| &commit.links).collect();
    assert_eq!(waited.len(), 2);
    assert!([call, stream].iter().zip(waited).all(|(call, link)| link.span_id == call.span_id));
}
