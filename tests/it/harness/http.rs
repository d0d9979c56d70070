//! Plain HTTP requests that must be answered.

use std::net::SocketAddr;
use testkit::{
    http::{self, Response, request_with_body},
    wait_until_async,
};
use tokio::{io::AsyncWriteExt, net::TcpStream};

use super::TestServer;

impl From<&TestServer> for SocketAddr {
    fn from(server: &TestServer) -> Self {
        server.address
    }
}

/// The value of a metric, whose name includes its labels.
pub async fn metric(server: impl Into<SocketAddr>, name: &str) -> f64 {
    let metrics = get(server, "/metrics").await.body;
    let line = metrics.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("no {name} in {metrics}")).parse().expect("a number")
}

/// Waits for a value of a metric.
pub async fn until_metric(server: impl Into<SocketAddr>, name: &str, value: usize) {
    let address = server.into();
    wait_until_async(async || metric(address, name).await == value as f64).await;
}

/// Sends a request whose response has no end.
pub async fn send(server: impl Into<SocketAddr>, request: String) -> TcpStream {
    let mut connection = TcpStream::connect(server.into()).await.expect("connect");
    connection.write_all(request.as_bytes()).await.expect("send");
    connection
}

/// Sends a request that closes its connection.
pub async fn call(server: impl Into<SocketAddr>, request: String) -> Response {
    http::call(server, &request).await.expect("a response")
}

pub async fn get(server: impl Into<SocketAddr>, path: &str) -> Response {
    http::get(server, path).await.expect("a response")
}

pub async fn post(server: impl Into<SocketAddr>, body: &str) -> Response {
    post_as(server, "application/json", body).await
}

pub async fn post_as(server: impl Into<SocketAddr>, media_type: &str, body: &str) -> Response {
    post_to(server, "/publish", media_type, body).await
}

pub async fn post_to(
    server: impl Into<SocketAddr>,
    path: &str,
    media_type: &str,
    body: &str,
) -> Response {
    call(server, request_with_body(&format!("POST {path}"), media_type, body)).await
}
