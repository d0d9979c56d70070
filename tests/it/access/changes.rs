//! Effects of a changed access file on open calls.

use event_aggregator::proto::v1::{
    ListEventsRequest, PublishRequest, PublishStreamRequest, SubscribeRequest,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
    sync::mpsc,
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Code;

use super::{Guarded, entry, grant, refused};
use crate::harness::*;

#[tokio::test(flavor = "multi_thread")]
async fn reload_applies_to_open_streams() {
    let guarded = Guarded::start(Backend::Sqlite).await;
    let mut shop = guarded.caller("shop").await;
    let topics = vec!["orders".to_owned()];
    let subscribe = SubscribeRequest { topics, ..Default::default() };
    let mut frames = shop.subscribe(subscribe.clone()).await.expect("granted").into_inner();
    let (requests, stream) = mpsc::channel(4);
    let mut answers =
        shop.publish_stream(ReceiverStream::new(stream)).await.expect("a stream").into_inner();
    let send =
        |id: &str| PublishStreamRequest { events: vec![event("orders", id)], ..Default::default() };
    requests.send(send("1")).await.expect("room");
    let first = answers.message().await.expect("an answer").expect("one");
    assert_eq!(first.unique_processed, 1);

    // An invalid file changes nothing.
    guarded.rewrite("[[identity]]\nname = 1\n");
    requests.send(send("2")).await.expect("room");
    assert_eq!(answers.message().await.expect("an answer").expect("one").unique_processed, 1);

    // The reader loses its topic; the producer may still publish to it.
    guarded.rewrite(&entry("shop", &grant("publish", "orders")));
    let status = loop {
        match frames.message().await {
            Ok(frame) => assert!(frame.is_some()),
            Err(status) => break status,
        }
    };
    refused(Err::<(), _>(status), Code::PermissionDenied);
    requests.send(send("3")).await.expect("room");
    assert_eq!(answers.message().await.expect("an answer").expect("one").unique_processed, 1);

    // The producer loses its grant, and then its identity.
    guarded.rewrite(&entry("shop", &grant("read", "orders")));
    testkit::wait_until_async(async || {
        shop.list_events(ListEventsRequest { topic: "orders".into(), ..Default::default() })
            .await
            .is_ok()
    })
    .await;
    requests.send(send("4")).await.expect("room");
    let denied = answers.message().await.expect("an answer").expect("one");
    assert_eq!(denied.rejected, 1);
    let mut frames = shop.subscribe(subscribe).await.expect("granted").into_inner();
    guarded.rewrite(&entry("other", ""));
    refused(answers.message().await, Code::Unauthenticated);
    let status = loop {
        match frames.message().await {
            Ok(frame) => assert!(frame.is_some()),
            Err(status) => break status,
        }
    };
    refused(Err::<(), _>(status), Code::Unauthenticated);
    assert_eq!(guarded.server.stored().await, 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn both_tokens_are_valid_during_rotation() {
    let both = entry("shop", &grant("read", "*"));
    let other = entry("new", "");
    let digest = other.split('[').nth(3).and_then(|rest| rest.split(']').next()).expect("a digest");
    let both = both.replace("\"]\ngrants", &format!("\", {digest}]\ngrants"));
    let guarded = Guarded::with(Backend::Sqlite, &both).await;
    for name in ["shop", "new"] {
        assert_eq!(guarded.get(name, "/stats").await.status, 200, "{name}");
    }
    let only_new = other.replace("name = \"new\"", "name = \"shop\"");
    guarded
        .rewrite(&only_new.replace("grants = []", &format!("grants = [{}]", grant("read", "*"))));
    testkit::wait_until_async(async || guarded.get("shop", "/stats").await.status == 401).await;
    assert_eq!(guarded.get("new", "/stats").await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn revoked_grant_stops_a_batch_in_progress() {
    let guarded = Guarded::start(Backend::Sqlite).await;
    let mut root = guarded.caller("root").await;
    // Far more than the system buffers for a reader that does not read.
    let payload = format!("{{\"x\":\"{}\"}}", "x".repeat(20_000));
    const ALL: usize = 1_000;
    for first in (0..ALL).step_by(100) {
        let ids = first..first + 100;
        let events = ids.map(|id| event_with("orders", &id.to_string(), &payload)).collect();
        let request = PublishRequest { events, allow_partial: false };
        root.publish(request).await.expect("granted");
    }
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.set_recv_buffer_size(4_096).expect("a small buffer");
    let mut connection = socket.connect(guarded.server.address).await.expect("connect");
    let head = "GET /events/stream?topic=orders&cursor=beginning HTTP/1.1\r\nHost: test\r\n\
                Connection: close\r\nAuthorization: Bearer token-of-shop\r\n\r\n";
    connection.write_all(head.as_bytes()).await.expect("send");
    connection.readable().await.expect("an answer");
    guarded.rewrite(&entry("root", &grant("publish read admin", "*")));
    testkit::wait_until_async(async || {
        guarded.get("shop", "/stats?topic=orders").await.status == 401
    })
    .await;
    let mut read = Vec::new();
    connection.read_to_end(&mut read).await.expect("an end");
    let read = String::from_utf8_lossy(&read);
    let events = read.matches("\ndata: ").count();
    assert!(events < ALL, "all were sent");
    // A batch ends with its cursor.
    let last = read.rsplit("\nid: ").next().expect("an id");
    assert!(last.contains("\ndata: "), "the batch was sent to its end after {events} events");
}

#[tokio::test(flavor = "multi_thread")]
async fn sse_ends_when_grant_is_revoked() {
    let guarded = Guarded::start(Backend::Sqlite).await;
    let mut connection = TcpStream::connect(guarded.server.address).await.expect("connect");
    let head = "GET /events/stream?topic=orders&cursor=beginning HTTP/1.1\r\nHost: test\r\n\
                Connection: close\r\nAuthorization: Bearer token-of-shop\r\n\r\n";
    connection.write_all(head.as_bytes()).await.expect("send");
    let mut byte = [0];
    connection.read_exact(&mut byte).await.expect("an answer");
    guarded.rewrite(&entry("other", ""));
    let mut rest = String::new();
    connection.read_to_string(&mut rest).await.expect("an end");
    assert!(rest.contains(" 200 OK"), "{rest}");
}
