//! Limits of connections, calls and subscriptions: excess ones are rejected, and existing ones
//! continue.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use event_aggregator::{
    proto::v1::{GetStatsRequest, ListEventsRequest, SubscribeRequest},
    testing::limits::{
        ADDRESS_SHARE, CALLER_SHARE, MAX_CALLS, MAX_CALLS_PER_CONNECTION, MAX_SUBSCRIBERS,
        RESERVED_FILES,
    },
};
use testkit::{
    http2::{Connection, DATA, END_STREAM, RST_STREAM, begin, frame, stream},
    process::Service,
    wait_until,
};
use tokio::{
    io::AsyncReadExt,
    net::{TcpSocket, TcpStream},
};
use tonic::{Code, Status};
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};
use tonic_types::StatusExt;

use crate::harness::*;

/// A low limit, and yet more than twice the number of reserved descriptors.
const LIMIT: usize = 200;

/// A connection from a loopback address.
pub async fn connect_from(host: u8, to: SocketAddr) -> TcpStream {
    let socket = TcpSocket::new_v4().expect("a socket");
    let from: IpAddr = Ipv4Addr::new(127, 0, 0, host).into();
    socket.bind((from, 0).into()).expect("an address of this machine");
    socket.connect(to).await.expect("the system takes it")
}

/// Whether an idle connection was closed.
async fn is_refused(mut connection: TcpStream) -> bool {
    matches!(connection.read(&mut [0; 1]).await, Ok(0) | Err(_))
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_are_limited_by_descriptors_and_address() {
    const OF_ONE: usize = LIMIT / ADDRESS_SHARE;
    let database = TestDatabase::new(Backend::Postgres).await;
    let files = format!("--nofile={}:{0}", LIMIT + RESERVED_FILES);
    let log = database.path("log");
    let service = Service::run(
        wrapper("prlimit")
            .args([&files, PROGRAM, "serve"])
            .args(["--listen", "127.0.0.1:0", "--database-url", &database.url_text()])
            .stderr(std::fs::File::create(&log).expect("a file")),
    );
    let address = service.address;
    let told = format!("connections={LIMIT}");
    wait_until(|| std::fs::read_to_string(&log).expect("text").contains(&told));

    // This one, and as many as its address may have.
    let mut client = connect_to(address).await;
    publish(&mut client, vec![event("t", "1")]).await;
    let mut connections = Vec::new();
    for _ in 1..OF_ONE - 1 {
        connections.push(connect_from(1, address).await);
    }
    until_metric(address, "event_aggregator_connections", OF_ONE).await;
    connections.push(connect_from(1, address).await);
    assert!(is_refused(connect_from(1, address).await).await, "one address has its share");
    for _ in 0..LIMIT - OF_ONE {
        connections.push(connect_from(2, address).await);
    }
    assert!(is_refused(connect_from(3, address).await).await, "others are refused");

    // Existing connections are served, including calls that need the database.
    for n in 0..10 {
        publish(&mut client, vec![event("t", &format!("during-{n}"))]).await;
        let page = client.list_events(ListEventsRequest::default()).await.expect("list");
        assert_eq!(page.into_inner().events.len(), n + 2);
    }
    connections.clear();
    // New connections are rejected until the service notices that one has closed.
    while !get_if_accepted(address).await {}
    assert!(metric(address, "event_aggregator_connections_refused_total").await >= 2.0);
}

/// Whether a new connection gets a response.
async fn get_if_accepted(address: SocketAddr) -> bool {
    use tokio::io::AsyncWriteExt;
    let mut connection = TcpStream::connect(address).await.expect("the system takes it");
    let request = b"GET /readyz HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n";
    let mut answer = String::new();
    let sent = connection.write_all(request).await;
    sent.is_ok() && connection.read_to_string(&mut answer).await.is_ok_and(|read| read > 0)
}

/// Connections that start this many calls, with the maximum number on each.
pub async fn begin_calls(
    address: SocketAddr,
    calls: usize,
    call: impl Fn(u32) -> Vec<u8>,
) -> Vec<Connection> {
    const OF_ONE: usize = MAX_CALLS_PER_CONNECTION as usize;
    let mut connections = Vec::new();
    for begun in (0..calls).step_by(OF_ONE) {
        let mut connection = Connection::open(address).await;
        for n in 0..OF_ONE.min(calls - begun) {
            connection.send(&call(stream(n))).await;
        }
        connections.push(connection);
    }
    connections
}

#[track_caller]
pub fn assert_rejected_with_retry_delay(status: &Status, expected: &str) {
    assert_eq!((status.code(), &*reason(status)), (Code::ResourceExhausted, expected));
    assert!(status.get_details_retry_info().is_some_and(|retry| retry.retry_delay.is_some()));
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_per_connection_are_limited() {
    const REFUSED_STREAM: [u8; 4] = [0, 0, 0, 7];
    let server = TestServer::start(Backend::Sqlite).await;
    let silent = |stream| begin("PublishStream", stream, 0);
    let share = MAX_CALLS_PER_CONNECTION as usize;
    let mut connection = begin_calls(server.address, share, silent).await.remove(0);
    let calls = "event_aggregator_calls_in_progress";
    until_metric(server.address, calls, share + 1).await;
    connection.send(&silent(stream(share))).await;
    let answers = connection.answers().await;
    let reset = answers.iter().find(|answer| answer.kind == RST_STREAM).expect("a refusal");
    assert_eq!((reset.stream, &*reset.content), (stream(share), &REFUSED_STREAM[..]));
    // Other connections have their own limit.
    publish(&mut server.client().await, vec![event("t", "1")]).await;
    drop(connection);
    until_metric(server.address, calls, 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn excess_calls_are_rejected_with_retry_delay() {
    let server = TestServer::start(Backend::Sqlite).await;
    let mut client = server.client().await;
    let silent = |stream| begin("PublishStream", stream, 0);
    let connections = begin_calls(server.address, MAX_CALLS, silent).await;
    let refused = loop {
        if let Err(status) = client.get_stats(GetStatsRequest::default()).await {
            break status;
        }
    };
    assert_rejected_with_retry_delay(&refused, "TOO_MANY_CALLS");
    let answer = get(server.address, "/stats").await;
    assert_eq!((answer.status, answer.header("retry-after")), (429, Some("1")));
    // Health checks are answered.
    for probe in ["/healthz", "/readyz"] {
        assert_eq!(get(server.address, probe).await.status, 200, "{probe}");
    }
    let mut health = HealthClient::new(channel_to(server.address).await);
    health.check(HealthCheckRequest::default()).await.expect("serving");
    drop(connections);
    while try_publish(&mut client, vec![event("t", "1")]).await.is_err() {}
}

#[tokio::test(flavor = "multi_thread")]
async fn excess_subscribers_are_rejected_with_retry_delay() {
    let server = TestServer::start(Backend::Sqlite).await;
    let mut client = server.client().await;
    let subscribe = |stream| {
        // An empty message.
        let message = frame(DATA, END_STREAM, stream, &[0; 5]);
        [begin("Subscribe", stream, 0), message].concat()
    };
    let connections = begin_calls(server.address, MAX_SUBSCRIBERS, subscribe).await;
    let subscribers = "event_aggregator_subscribers";
    until_metric(server.address, subscribers, MAX_SUBSCRIBERS / CALLER_SHARE).await;
    let refused =
        client.subscribe(SubscribeRequest::default()).await.expect_err("the limit is reached");
    assert_rejected_with_retry_delay(&refused, "TOO_MANY_SUBSCRIBERS");
    let answer = get(server.address, "/events/stream").await;
    assert_eq!(answer.status, 429, "{answer:?}");
    // Other calls are served.
    publish(&mut client, vec![event("t", "1")]).await;
    drop(connections);
    until_metric(server.address, subscribers, 0).await;
    client.subscribe(SubscribeRequest::default()).await.expect("below the limit again");
}
