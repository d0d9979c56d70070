//! Cross-origin requests that a web page can make a browser send to a service without
//! authentication.

use event_aggregator::{
    config::Config,
    proto::v1::{GetStatsRequest, PublishRequest},
};
use prost::Message;
use testkit::http::Response;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use tonic::{
    Code,
    body::Body,
    codegen::{
        Service,
        http::{self, HeaderValue, Method},
    },
    transport::Channel,
};

use crate::harness::*;

const PUBLISH: &str = "/event_aggregator.v1.EventAggregatorService/Publish";

/// A request with one event, in gRPC framing.
fn framed() -> Vec<u8> {
    let request = PublishRequest { events: vec![event("t", "1")], allow_partial: false };
    let mut frame = vec![0];
    frame.extend((request.encoded_len() as u32).to_be_bytes());
    request.encode(&mut frame).expect("room");
    frame
}

/// Status and headers of a response over HTTP/1.1.
async fn over_http1(server: &TestServer, method: &str, content_type: Option<&str>) -> String {
    let body = framed();
    let content_type = content_type.map(|it| format!("Content-Type: {it}\r\n"));
    let head = format!(
        "{method} {PUBLISH} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n{}Content-Length: {}\r\n\r\n",
        server.address,
        content_type.unwrap_or_default(),
        body.len(),
    );
    let mut connection = TcpStream::connect(server.address).await.expect("connect");
    connection.write_all(&[head.as_bytes(), &body].concat()).await.expect("send");
    let mut answer = Vec::new();
    connection.read_to_end(&mut answer).await.expect("an answer");
    String::from_utf8_lossy(&answer).to_lowercase()
}

/// The same over HTTP/2.
async fn over_http2(
    server: &TestServer,
    method: Method,
    content_type: Option<&str>,
) -> http::Response<Body> {
    let address = format!("http://{}", server.address);
    let mut channel =
        Channel::from_shared(address).expect("an address").connect().await.expect("connect");
    let body = Body::new(http_body_util::Full::from(framed()));
    let mut request = http::Request::new(body);
    *request.method_mut() = method;
    *request.uri_mut() = PUBLISH.parse().expect("a path");
    if let Some(content_type) = content_type {
        let content_type = HeaderValue::from_str(content_type).expect("a header");
        request.headers_mut().insert("content-type", content_type);
    }
    std::future::poll_fn(|context| channel.poll_ready(context)).await.expect("ready");
    channel.call(request).await.expect("an answer")
}

#[tokio::test(flavor = "multi_thread")]
async fn cors_simple_requests_are_rejected() {
    let server = TestServer::start(Backend::Sqlite).await;
    for content_type in [
        None,
        Some("text/plain"),
        Some("text/plain; application/grpc"),
        Some("multipart/form-data; boundary=application/grpc"),
        Some("application/x-www-form-urlencoded"),
        Some("application/grpcx"),
    ] {
        let answer = over_http1(&server, "POST", content_type).await;
        assert!(answer.starts_with("http/1.1 415 "), "{content_type:?}: {answer}");
        assert!(
            answer.contains("application/grpc-web"),
            "the accepted media type is named: {answer}"
        );
        let answer = over_http2(&server, Method::POST, content_type).await;
        assert_eq!(answer.status(), 415, "{content_type:?}");
    }
    for method in [Method::GET, Method::HEAD, Method::PUT, Method::OPTIONS] {
        let answer = over_http1(&server, method.as_str(), Some("application/grpc")).await;
        assert!(answer.starts_with("http/1.1 405 "), "{method}: {answer}");
        assert!(!answer.contains("access-control"), "no CORS headers: {answer}");
        let answer = over_http2(&server, method, Some("application/grpc")).await;
        assert_eq!(
            (answer.status().as_u16(), answer.headers()["allow"].as_bytes()),
            (405, &b"POST"[..])
        );
    }
    assert_eq!(server.stored().await, 0);
    for content_type in ["application/grpc", "Application/GRPC+proto; x=y"] {
        let answer = over_http2(&server, Method::POST, Some(content_type)).await;
        assert_eq!(answer.status(), 200, "{content_type}");
    }
    assert_eq!(server.stored().await, 1);
}

/// An HTTP/1.1 call of a page at `host`, after DNS rebinding.
async fn as_page(server: &TestServer, host: &str, rest: &str) -> Response {
    let (line, more) = rest.split_once('\n').unwrap_or((rest, ""));
    let head = format!("{line} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n");
    call(server, format!("{head}{more}\r\n")).await
}

async fn stats_as(server: &TestServer, host: &str) -> Option<tonic::Status> {
    let address = format!("http://{}", server.address);
    let origin = format!("http://{host}").parse().expect("an origin");
    let channel = Channel::from_shared(address).expect("an address").origin(origin);
    let mut client = Client::new(channel.connect().await.expect("connect"));
    client.get_stats(GetStatsRequest::default()).await.err()
}

const CALLS: [&str; 6] = [
    "GET /stats",
    "GET /events",
    "GET /events/t/1",
    "GET /events/stream",
    "GET /metrics",
    "POST /publish\nContent-Type: application/json\r\nContent-Length: 9999999\r\n",
];

#[tokio::test(flavor = "multi_thread")]
async fn dns_rebinding_is_rejected() {
    let server = TestServer::start(Backend::Sqlite).await;
    let port = server.address.port();
    let evil = format!("evil.example:{port}");
    for rest in CALLS {
        let answer = as_page(&server, &evil, rest).await;
        assert_eq!(answer.status, 403, "{rest}: {}", answer.body);
        let error = answer.json()["error"].as_str().expect("text").to_owned();
        assert!(error.contains("localhost") && error.contains("--access"), "{error}");
    }
    // Nor if the request line has another host than the header.
    let line = format!("GET http://localhost:{port}/stats");
    assert_eq!(as_page(&server, &evil, &line).await.status, 403);
    let line = format!("GET http://{evil}/stats");
    assert_eq!(as_page(&server, "localhost", &line).await.status, 403);

    let refused = stats_as(&server, &evil).await.expect("refused");
    assert_eq!(refused.code(), Code::PermissionDenied);
    assert_eq!(reason(&refused), "MISADDRESSED");
    assert!(refused.message().contains("localhost"), "{refused:?}");

    // Local names are accepted.
    for host in ["localhost", "127.0.0.1", "[::1]", "events.localhost", "machine"] {
        let host = format!("{host}:{port}");
        assert_eq!(as_page(&server, &host, "GET /stats").await.status, 200, "{host}");
        assert!(stats_as(&server, &host).await.is_none(), "{host}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn any_host_is_accepted_with_insecure_or_access() {
    let database = TestDatabase::new(Backend::Sqlite).await;
    let config = Config { insecure: true, ..config_for(&database.url) };
    let server = TestServer::with(database, &config).await;
    assert_eq!(as_page(&server, "events.example", "GET /stats").await.status, 200);
    assert!(stats_as(&server, "events.example").await.is_none());

    // With an access file, a token is required, which no page has.
    let guarded = super::Guarded::start(Backend::Sqlite).await;
    let token = "GET /stats\nAuthorization: Bearer token-of-root\r\n";
    assert_eq!(as_page(&guarded.server, "events.example", token).await.status, 200);
    assert_eq!(as_page(&guarded.server, "events.example", "GET /stats").await.status, 401);
}
