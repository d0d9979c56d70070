//! gRPC-Web as in browsers: over HTTP/1.1, with the trailers in a frame of the body.

use event_aggregator::proto::v1::{
    GetStatsRequest, GetStatsResponse, ListEventsRequest, ListEventsResponse, PublishRequest,
    PublishResponse, PublishStatus, SubscribeRequest, SubscribeResponse, subscribe_response::Frame,
};
use prost::Message;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::harness::*;

on_both_stores!(
    events_are_published_and_counted,
    large_responses_have_trailers,
    errors_and_unknown_methods_are_reported,
    streams_are_delivered_incrementally,
);

const TRAILERS: u8 = 0x80;

/// A response that is read incrementally.
struct Call {
    connection: TcpStream,
    head: String,
    body: Vec<u8>,
}

impl Call {
    async fn begin(server: &TestServer, method: &str, message: &impl Message) -> Self {
        let mut frame = vec![0];
        frame.extend((message.encoded_len() as u32).to_be_bytes());
        message.encode(&mut frame).expect("room");
        let head = format!(
            "POST /event_aggregator.v1.EventAggregatorService/{method} HTTP/1.1\r\nHost: test\r\n\
             Origin: http://elsewhere\r\nContent-Type: application/grpc-web+proto\r\n\
             X-Grpc-Web: 1\r\nContent-Length: {}\r\n\r\n",
            frame.len()
        );
        let mut connection = TcpStream::connect(server.address).await.expect("connect");
        connection.write_all(&[head.as_bytes(), &frame].concat()).await.expect("send");
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(connection.read_u8().await.expect("a head"));
        }
        let head = String::from_utf8(head).expect("text").to_lowercase();
        assert!(head.starts_with("http/1.1 200"), "{head}");
        assert!(head.contains("content-type: application/grpc-web+proto"), "{head}");
        assert!(!head.contains("access-control"), "not for other origins: {head}");
        Self { connection, head, body: Vec::new() }
    }

    /// The next chunk, or `None` after the last.
    async fn chunk(&mut self) -> bool {
        let mut size = Vec::new();
        while !size.ends_with(b"\r\n") {
            size.push(self.connection.read_u8().await.expect("a chunk"));
        }
        let size = std::str::from_utf8(&size).expect("text").trim();
        let size = usize::from_str_radix(size, 16).expect("hexadecimal");
        let mut chunk = vec![0; size + 2];
        self.connection.read_exact(&mut chunk).await.expect("a whole chunk");
        self.body.extend(&chunk[..size]);
        size > 0
    }

    /// The next frame: its flags and its content.
    async fn frame(&mut self) -> (u8, Vec<u8>) {
        loop {
            if let Some(length) = self.body.get(1..5) {
                let end = 5 + u32::from_be_bytes(length.try_into().expect("four")) as usize;
                if self.body.len() >= end {
                    let frame: Vec<u8> = self.body.drain(..end).collect();
                    return (frame[0], frame[5..].to_vec());
                }
            }
            assert!(self.chunk().await, "the body ends within a frame");
        }
    }

    async fn message<T: Message + Default>(&mut self) -> T {
        let (flags, message) = self.frame().await;
        assert_eq!(flags, 0);
        T::decode(&*message).expect("a message")
    }

    async fn is_ok(&mut self) {
        let (flags, trailers) = self.frame().await;
        assert_eq!(flags, TRAILERS);
        let trailers = String::from_utf8(trailers).expect("text");
        assert!(trailers.contains("grpc-status:0"), "{trailers}");
        assert!(!self.chunk().await, "nothing comes behind the trailers");
    }
}

async fn events_are_published_and_counted(backend: Backend) {
    let server = TestServer::start(backend).await;
    let request = PublishRequest { events: vec![event("t", "1"); 2], allow_partial: false };
    let mut call = Call::begin(&server, "Publish", &request).await;
    let response: PublishResponse = call.message().await;
    let verdicts: Vec<_> = response.results.iter().map(|result| result.status()).collect();
    assert_eq!(verdicts, [PublishStatus::Accepted, PublishStatus::Duplicate]);
    call.is_ok().await;
    let mut call = Call::begin(&server, "GetStats", &GetStatsRequest::default()).await;
    let stats: GetStatsResponse = call.message().await;
    assert_eq!((stats.received, stats.unique_processed), (2, 1));
    call.is_ok().await;
}

async fn large_responses_have_trailers(backend: Backend) {
    let server = TestServer::start(backend).await;
    let payload = format!(r#"{{"x":"{}"}}"#, "x".repeat(300_000));
    publish(&mut server.client().await, vec![event_with("t", "1", &payload)]).await;
    let mut call = Call::begin(&server, "ListEvents", &ListEventsRequest::default()).await;
    assert!(!call.head.contains("content-length"), "the body has trailers: {}", call.head);
    let listed: ListEventsResponse = call.message().await;
    assert_eq!(listed.events.len(), 1);
    call.is_ok().await;
}

async fn errors_and_unknown_methods_are_reported(backend: Backend) {
    let server = TestServer::start(backend).await;
    let request = PublishRequest { events: vec![event("", "1")], allow_partial: false };
    let call = Call::begin(&server, "Publish", &request).await;
    assert!(call.head.contains("grpc-status: 3"), "{}", call.head);
    let call = Call::begin(&server, "Nothing", &request).await;
    assert!(call.head.contains("grpc-status: 12"), "{}", call.head);
}

async fn streams_are_delivered_incrementally(backend: Backend) {
    let server = TestServer::start(backend).await;
    let cursor = "beginning".to_owned();
    let request = SubscribeRequest { cursor, ..SubscribeRequest::default() };
    let mut call = Call::begin(&server, "Subscribe", &request).await;
    let mut client = server.client().await;
    for id in ["1", "2"] {
        publish(&mut client, vec![event("t", id)]).await;
        loop {
            let response: SubscribeResponse = call.message().await;
            if let Some(Frame::Events(batch)) = response.frame {
                assert_eq!(batch.events[0].event_id, id);
                break;
            }
        }
    }
}
