//! A bare tonic server for the same calls: it answers the same message and stores nothing. It is this
//! program in another process.

use std::{
    convert::Infallible,
    process::Command,
    task::{Context, Poll},
};

use event_aggregator::{
    proto::v1::{PublishRequest, PublishResponse, PublishResult, PublishStatus},
    testing::grpc::SERVICE_NAME,
};
use testkit::bench;
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{
    Request, Response, Status,
    body::Body,
    codegen::{BoxFuture, Service, http},
    server::{Grpc, NamedService, UnaryService},
    transport::Server,
};
use tonic_prost::ProstCodec;

use crate::PROGRAM;

/// The argument with which this program is the server.
pub const ARGUMENT: &str = "--bare-server";

/// Starts the server.
pub fn start() -> bench::Service {
    let program = std::env::current_exe().expect("this program");
    bench::Service::run(PROGRAM, Command::new(program).arg(ARGUMENT))
}

/// Is the server, until it is killed.
pub async fn serve() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
    println!("listening on {}", listener.local_addr().expect("an address"));
    let connections = TcpListenerStream::new(listener);
    let server = Server::builder().tcp_nodelay(true).add_service(Bare);
    server.serve_with_incoming(connections).await.expect("serve");
}

#[derive(Clone)]
struct Bare;

impl NamedService for Bare {
    const NAME: &'static str = SERVICE_NAME;
}

impl Service<http::Request<Body>> for Bare {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<Self::Response, Infallible>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        Box::pin(async {
            let codec: ProstCodec<PublishResponse, PublishRequest> = ProstCodec::default();
            Ok(Grpc::new(codec).unary(Accept, request).await)
        })
    }
}

/// Accepts all events.
struct Accept;

impl UnaryService<PublishRequest> for Accept {
    type Response = PublishResponse;
    type Future = BoxFuture<Response<PublishResponse>, Status>;

    fn call(&mut self, request: Request<PublishRequest>) -> Self::Future {
        Box::pin(async {
            let events = request.into_inner().events.len();
            let now = prost_types::Timestamp { seconds: 1_800_000_000, nanos: 123_456_000 };
            let result = PublishResult {
                status: PublishStatus::Accepted.into(),
                first_received_at: Some(now),
                ..PublishResult::default()
            };
            Ok(Response::new(PublishResponse {
                results: vec![result; events],
                received: events as i64,
                unique_processed: events as i64,
                ..PublishResponse::default()
            }))
        })
    }
}
