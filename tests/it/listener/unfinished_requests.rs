//! Calls whose request is not complete: they are not processed until then.

use std::time::Instant;

use event_aggregator::testing::limits::{READING_TIMEOUT, REFLECTION_IDLE_TIMEOUT};
use testkit::http2::{
    ACK, Connection, DATA, END_STREAM, HEADERS, PING, REFLECTION, begin, begin_at, frame, message,
    stream,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::harness::*;

/// Name of a metric with the labels of a call.
fn counted(what: &str, method: &str, code: &str) -> String {
    let service = "grpc_service=\"event_aggregator.v1.EventAggregatorService\"";
    let code = if code.is_empty() { code } else { &format!(",grpc_code=\"{code}\"") };
    format!("{what}{{grpc_type=\"unary\",{service},grpc_method=\"{method}\"{code}}}")
}

#[tokio::test(flavor = "multi_thread")]
async fn unary_request_is_processed_after_half_close() {
    let server = TestServer::start(Backend::Sqlite).await;
    let address = server.address;
    let mut connection = Connection::open(address).await;
    connection.send(&begin("Publish", stream(0), 0)).await;
    // An undecodable message in two frames.
    connection.send(&frame(DATA, 0, stream(0), &[0, 0, 0, 0, 2, 8])).await;
    connection.send(&frame(DATA, 0, stream(0), &[1])).await;
    until_metric(address, &counted("grpc_server_msg_received_total", "Publish", ""), 1).await;
    let answers = connection.answers().await;
    assert!(answers.iter().all(|answer| answer.stream == 0), "{answers:?}");
    connection.send(&frame(DATA, END_STREAM, stream(0), &[])).await;
    let refused = counted("grpc_server_handled_total", "Publish", "InvalidArgument");
    until_metric(address, &refused, 1).await;
    while connection.next().await.expect("an answer").kind != HEADERS {}
}

#[tokio::test(flavor = "multi_thread")]
async fn second_message_of_a_unary_call_is_rejected() {
    let server = TestServer::start(Backend::Sqlite).await;
    let address = server.address;
    let mut connection = Connection::open(address).await;
    let message = frame(DATA, 0, stream(0), &[0; 5]);
    connection.send(&begin("GetStats", stream(0), 0)).await;
    connection.send(&[&message[..], &message].concat()).await;
    // Without half-closing.
    let refused = counted("grpc_server_handled_total", "GetStats", "InvalidArgument");
    until_metric(address, &refused, 1).await;

    // A call with a separate half-close is answered as usual.
    connection.send(&begin("GetStats", stream(1), 0)).await;
    connection.send(&frame(DATA, 0, stream(1), &[0; 5])).await;
    connection.send(&frame(DATA, 0, stream(1), &[])).await;
    connection.send(&frame(DATA, END_STREAM, stream(1), &[])).await;
    until_metric(address, &counted("grpc_server_handled_total", "GetStats", "OK"), 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn stalled_body_is_rejected() {
    let server = TestServer::start(Backend::Sqlite).await;
    let mut connection = TcpStream::connect(server.address).await.expect("connect");
    let head = "POST /publish HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n";
    let head = format!("{head}Content-Length: 100000\r\n\r\n[");
    let begun = Instant::now();
    connection.write_all(head.as_bytes()).await.expect("send");
    let mut answer = vec![0; 12];
    connection.read_exact(&mut answer).await.expect("an answer");
    assert_eq!(answer, b"HTTP/1.1 408");
    assert!(begun.elapsed() < READING_TIMEOUT, "it has less time than one that arrives");
}

#[tokio::test(flavor = "multi_thread")]
async fn idle_reflection_stream_is_closed() {
    let server = TestServer::start(Backend::Sqlite).await;
    let mut connection = Connection::open(server.address).await;
    let begun = Instant::now();
    connection.send(&begin_at(REFLECTION, stream(0), 0)).await;
    // Lists the names of all services.
    connection.send(&message(stream(0), &[0x3a, 1, b'*'], 0)).await;
    let (mut heads, mut is_answered) = (0, false);
    while heads < 2 {
        let next = connection.next().await.expect("a frame");
        match next.kind {
            // The headers and the trailers.
            HEADERS => heads += 1,
            DATA => is_answered = true,
            PING => connection.send(&frame(PING, ACK, 0, &next.content)).await,
            _ => (),
        }
    }
    assert!(is_answered);
    assert!(begun.elapsed() >= REFLECTION_IDLE_TIMEOUT);
}
