//! Connections: timeouts, rejections, panics and shutdown, without effects on other connections.

use std::{
    net::SocketAddr,
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use async_trait::async_trait;
use event_aggregator::{
    app::{self, App},
    event::{EventKey, Outcome},
    proto::v1::{GetStatsRequest, PublishRequest, PublishStreamRequest, SubscribeRequest},
    store::{Batch, Error, Found, ListQuery, Page, Stats, Store, StoreLayer, sqlite::SqliteStore},
    testing::{
        grpc::SERVICE_NAME,
        limits::{
            CALLER_SHARE, DRAIN_TIMEOUT, FLUSH_TIMEOUT, HTTP1_BUFFER_BYTES, KEEPALIVE_INTERVAL,
            MAX_READING_BYTES, MAX_REQUEST_BYTES, MIN_ACCEPT_BACKOFF, OPENING_TIMEOUT,
            READING_STALL_TIMEOUT, SMALL_REQUEST_BYTES,
        },
        listener::Listener,
        metrics::Metrics,
    },
};
use prost::Message;
use testkit::{http2::Connection, process::Service, wait_until};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::{Notify, oneshot},
    task::{JoinHandle, JoinSet},
    time::sleep,
};
use tonic::{Code, Request};

use crate::harness::*;

mod floods;
mod limits;
mod shares;
mod unauthenticated;
mod unfinished_requests;
mod unread_responses;

/// Wraps a store with behavior controlled by the test.
struct StubStore {
    store: SqliteStore,
    /// Panics in `stats` and in `commit`.
    panics: AtomicBool,
    /// Never commits.
    hangs: AtomicBool,
    /// Listings by source in progress. They end no sooner than commits do.
    scans: AtomicUsize,
    /// Number of listings and look-ups so far.
    reads: AtomicUsize,
    hanging: Notify,
}

#[async_trait]
impl StoreLayer for StubStore {
    fn inner(&self) -> &dyn Store {
        &self.store
    }

    async fn commit(&self, batch: Arc<Batch>) -> Result<Vec<Outcome>, Error> {
        assert!(!self.panics.load(Ordering::Relaxed), "as the test wants");
        while self.hangs.load(Ordering::Relaxed) {
            self.hanging.notified().await;
        }
        self.store.commit(batch).await
    }

    async fn list(&self, query: ListQuery) -> Result<Page, Error> {
        self.reads.fetch_add(1, Ordering::Relaxed);
        if query.filter.source.is_some() {
            self.scans.fetch_add(1, Ordering::Relaxed);
            while self.hangs.load(Ordering::Relaxed) {
                self.hanging.notified().await;
            }
            self.scans.fetch_sub(1, Ordering::Relaxed);
        }
        self.store.list(query).await
    }

    async fn get(&self, keys: Vec<EventKey>, max_bytes: usize) -> Result<Found, Error> {
        self.reads.fetch_add(1, Ordering::Relaxed);
        self.store.get(keys, max_bytes).await
    }

    async fn stats(&self, topic: Option<String>, max_topics: usize) -> Result<Stats, Error> {
        assert!(!self.panics.load(Ordering::Relaxed), "as the test wants");
        self.store.stats(topic, max_topics).await
    }
}

/// A service over a stub store.
struct StubServer {
    store: Arc<StubStore>,
    address: SocketAddr,
    stop: oneshot::Sender<()>,
    running: JoinHandle<Result<(), app::Error>>,
    _folder: tempfile::TempDir,
}

impl StubServer {
    async fn start() -> Self {
        let folder = tempfile::tempdir().expect("temporary folder");
        let store = Arc::new(StubStore {
            store: SqliteStore::open(&folder.path().join("events.db")).expect("open"),
            panics: AtomicBool::new(false),
            hangs: AtomicBool::new(false),
            scans: AtomicUsize::new(0),
            reads: AtomicUsize::new(0),
            hanging: Notify::new(),
        });
        let listener = Listener::bind(([127, 0, 0, 1], 0).into(), None).await.expect("bind");
        let over: Arc<dyn Store> = Arc::<StubStore>::clone(&store);
        let app = App::over(over, Metrics::default(), listener, None).await.expect("start");
        let address = app.address();
        let (stop, stopped) = oneshot::channel::<()>();
        let running = tokio::spawn(app.run(async { drop(stopped.await) }));
        Self { store, address, stop, running, _folder: folder }
    }

    /// Sets whether commits hang.
    fn hang(&self, hangs: bool) {
        self.store.hangs.store(hangs, Ordering::Relaxed);
        self.store.hanging.notify_one();
    }

    async fn metric(&self, name: &str) -> f64 {
        metric(self.address, name).await
    }
}

/// How long a connection stays open on which this is sent, byte by byte if `drips`.
async fn lasts(address: SocketAddr, text: &'static [u8], drips: bool) -> Duration {
    let begun = Instant::now();
    let mut connection = TcpStream::connect(address).await.expect("connect");
    let (mut from, mut to) = connection.split();
    let sending = async {
        for byte in text.chunks(if drips { 1 } else { text.len().max(1) }) {
            if to.write_all(byte).await.is_err() {
                return;
            }
            if drips {
                sleep(Duration::from_millis(700)).await;
            }
        }
        std::future::pending::<()>().await;
    };
    let reading = async {
        let mut buffer = [0; 1_024];
        while matches!(from.read(&mut buffer).await, Ok(1..)) {}
    };
    tokio::select! {
        () = sending => (),
        () = reading => (),
    }
    begun.elapsed()
}

#[tokio::test(flavor = "multi_thread")]
async fn idle_connections_time_out() {
    const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    let server = TestServer::start(Backend::Sqlite).await;
    let address = server.address;
    let mut patient = server.client().await;
    let mut idlers = JoinSet::new();
    for (text, drips) in [
        (&b""[..], false),
        (PREFACE, true),
        (&PREFACE[..20], false),
        (b"GET /stats HTTP/1.1\r\nHost: a long name of the host\r\n", true),
        (b"GET /stats HTTP/1.1\r\nHost: x\r\n", false),
        // Answered, and then idle.
        (b"GET /stats HTTP/1.1\r\nHost: x\r\n\r\n", false),
    ] {
        idlers.spawn(async move { (text, drips, lasts(address, text, drips).await) });
    }
    while let Some(idler) = idlers.join_next().await {
        let (text, drips, lasted) = idler.expect("an end");
        let text = String::from_utf8_lossy(text);
        assert!(lasted >= OPENING_TIMEOUT / 2, "{text:?} {drips} {lasted:?}");
        // Far less than any other timeout.
        assert!(lasted < OPENING_TIMEOUT * 3, "{text:?} {drips} {lasted:?}");
    }
    // After the protocol is known, a client may be idle for longer.
    publish(&mut patient, vec![event("t", "1")]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn unanswered_keepalive_closes_connection() {
    let server = TestServer::start(Backend::Sqlite).await;
    let begun = Instant::now();
    let mut vanished = Connection::open(server.address).await;
    let here = tokio::spawn(Connection::open(server.address).await.stay());
    while vanished.next().await.is_some() {}
    assert!(begun.elapsed() >= KEEPALIVE_INTERVAL, "{:?}", begun.elapsed());
    assert!(!here.is_finished());
}

#[tokio::test(flavor = "multi_thread")]
async fn garbage_and_endless_headers_are_rejected() {
    let server = TestServer::start(Backend::Sqlite).await;
    let respond = async |request: &[u8]| {
        let mut connection = TcpStream::connect(server.address).await.expect("connect");
        let mut response = Vec::new();
        // In pieces, until there is a response: one to a connection with unread data would be lost.
        for piece in request.chunks(16 << 10) {
            connection.write_all(piece).await.expect("send");
            let reading = connection.read_buf(&mut response);
            if tokio::time::timeout(Duration::from_millis(50), reading).await.is_ok() {
                break;
            }
        }
        let _ = connection.read_to_end(&mut response).await;
        String::from_utf8_lossy(&response).lines().next().unwrap_or_default().to_owned()
    };
    let garbage: Vec<u8> =
        (0..4_096_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    assert_eq!(respond(&garbage).await, "HTTP/1.1 400 Bad Request");
    let many: String = (0..200).map(|n| format!("x-{n}: 1\r\n")).collect();
    let many = respond(format!("GET / HTTP/1.1\r\n{many}\r\n").as_bytes()).await;
    assert_eq!(many, "HTTP/1.1 431 Request Header Fields Too Large");
    let endless = [&b"GET / HTTP/1.1\r\nx: "[..], &[b'x'; 2 * HTTP1_BUFFER_BYTES]].concat();
    assert_eq!(respond(&endless).await, "HTTP/1.1 431 Request Header Fields Too Large");

    let mut client = server.client().await;
    let mut request = Request::new(GetStatsRequest::default());
    let value = "x".repeat(20 << 10).parse().expect("ASCII");
    request.metadata_mut().insert("x", value);
    let refused = client.get_stats(request).await.expect_err("more than 16 KiB");
    // A response without a gRPC status, which the client library maps.
    assert!(refused.message().contains("431"), "{refused:?}");
    // Other calls of the connection succeed.
    client.get_stats(GetStatsRequest::default()).await.expect("a response");
    publish(&mut server.client().await, vec![event("t", "1")]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_continue_while_accept_fails() {
    let database = TestDatabase::new(Backend::Sqlite).await;
    let log = database.path("log");
    let service = Service::run(
        program()
            .args(["serve", "--listen", "127.0.0.1:0", "--database-url", &database.url_text()])
            .env("RUST_LOG", "info,event_aggregator::listener=debug")
            .stderr(std::fs::File::create(&log).expect("a file")),
    );
    let mut client = connect_to(service.address).await;
    publish(&mut client, vec![event("t", "1")]).await;
    let tries = || {
        let log = std::fs::read_to_string(&log).expect("text");
        log.matches("cannot accept connections").count()
    };
    let open = || -> Vec<usize> {
        let files = std::fs::read_dir(format!("/proc/{}/fd", service.id())).expect("fd");
        let names = files.filter_map(|file| file.ok()?.file_name().into_string().ok());
        names.map(|name| name.parse().expect("a number")).collect()
    };
    let limit = |files: &str| {
        let pid = service.id().to_string();
        let nofile = format!("--nofile={files}:");
        let status = Command::new("prlimit").args(["--pid", &pid, &nofile]).status();
        assert!(status.expect("prlimit").success());
    };
    let mut waiting = Vec::new();
    let used_up = open().into_iter().max().expect("a file") + 3;
    limit(&used_up.to_string());
    for _ in 0..used_up + 20 {
        waiting.push(TcpStream::connect(service.address).await.expect("the system takes it"));
    }
    wait_until(|| open().len() == used_up);
    let (begun, before) = (Instant::now(), tries());
    for n in 0..100 {
        publish(&mut client, vec![event("t", &format!("during-{n}"))]).await;
    }
    wait_until(|| tries() >= before + 3);
    // It backs off between attempts; otherwise it would use up one CPU.
    let (tried, passed) = (tries() - before, begun.elapsed());
    let most = passed.div_duration_f64(MIN_ACCEPT_BACKOFF) + 1.0;
    assert!(tried as f64 <= most, "{tried} in {passed:?}");
    drop(waiting);
    limit("1024");
    publish(&mut connect_to(service.address).await, vec![event("t", "after")]).await;
}

/// The response to a gRPC-Web call with a timeout, whose request does not end. Native gRPC clients
/// would enforce the timeout themselves.
async fn answer_within(address: SocketAddr, method: &str, message: &[u8], time: &str) -> String {
    let mut connection = TcpStream::connect(address).await.expect("connect");
    let head = format!(
        "POST /{SERVICE_NAME}/{method} HTTP/1.1\r\nHost: test\r\nGrpc-Timeout: {time}\r\n\
         Content-Type: application/grpc-web+proto\r\nTransfer-Encoding: chunked\r\n\r\n\
         {:x}\r\n",
        message.len() + 5
    );
    let length = (message.len() as u32).to_be_bytes();
    let end: &[u8] = if method == "PublishStream" { b"\r\n" } else { b"\r\n0\r\n\r\n" };
    let request = [head.as_bytes(), &[0], &length, message, end].concat();
    connection.write_all(&request).await.expect("send");
    let (mut answer, mut buffer) = (Vec::new(), [0; 1_024]);
    loop {
        let read = connection.read(&mut buffer).await.expect("an answer");
        answer.extend_from_slice(&buffer[..read]);
        let text = String::from_utf8_lossy(&answer);
        let status = text.find("grpc-status:").map(|start| &text[start..]);
        if read == 0 || status.is_some_and(|status| status.contains('\n')) {
            return text.into_owned();
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn call_deadlines_are_enforced() {
    let server = StubServer::start().await;
    let mut client = connect_to(server.address).await;
    publish(&mut client, vec![event("t", "1")]).await;
    server.hang(true);
    let events = vec![event("t", "2")];
    let publish = PublishRequest { events, allow_partial: false }.encode_to_vec();
    // Server streams deliver until then.
    for (method, message) in [
        ("Publish", publish),
        ("Subscribe", SubscribeRequest::default().encode_to_vec()),
        ("PublishStream", PublishStreamRequest::default().encode_to_vec()),
    ] {
        let answer = answer_within(server.address, method, &message, "300m").await;
        let (_, status) = answer.rsplit_once("grpc-status:").expect("a status");
        assert_eq!(status.trim_start().get(..1), Some("4"), "{method}: {answer}");
    }

    server.hang(false);
    let [received, unique, ..] = counters(&mut client).await;
    assert!(received == unique && (1..=2).contains(&unique), "what was sent is stored or not");
    let counted = r#"grpc_server_handled_total{grpc_type="unary",grpc_service="event_aggregator.v1.EventAggregatorService",grpc_method="Publish",grpc_code="DeadlineExceeded"}"#;
    assert_eq!(server.metric(counted).await, 1.0);
    let _ = server.stop.send(());
    drop(client);
    server.running.await.expect("no panic").expect("a good end");
}

#[tokio::test(flavor = "multi_thread")]
async fn panic_in_a_call_is_reported_and_counted() {
    let server = StubServer::start().await;
    let mut client = connect_to(server.address).await;
    server.store.panics.store(true, Ordering::Relaxed);
    let before = server.metric("event_aggregator_panics_total").await;
    let fault = client.get_stats(GetStatsRequest::default()).await.expect_err("a panic");
    assert_eq!((fault.code(), &*reason(&fault)), (Code::Internal, "INTERNAL"));
    let answer = get(server.address, "/stats").await;
    assert_eq!(answer.status, 500, "{answer:?}");
    let body = r#"{"error":"internal error; see the server log","reason":"INTERNAL"}"#;
    assert_eq!(answer.body, body);
    assert!(server.metric("event_aggregator_panics_total").await >= before + 2.0);
    let counted = r#"grpc_server_handled_total{grpc_type="unary",grpc_service="event_aggregator.v1.EventAggregatorService",grpc_method="GetStats",grpc_code="Internal"}"#;
    assert_eq!(server.metric(counted).await, 1.0);
    assert_eq!(get(server.address, "/readyz").await.status, 200);

    server.store.panics.store(false, Ordering::Relaxed);
    publish(&mut client, vec![event("t", "1")]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn panic_in_the_write_path_stops_the_service() {
    let server = StubServer::start().await;
    let mut client = connect_to(server.address).await;
    let mut frames =
        client.subscribe(SubscribeRequest::default()).await.expect("feed").into_inner();
    server.store.panics.store(true, Ordering::Relaxed);
    let unknown = try_publish(&mut client, vec![event("t", "1")]).await.expect_err("a panic");
    assert_eq!(unknown.code(), Code::Unavailable, "perhaps it is stored: send it again");
    assert_eq!(reason(&unknown), "STORE_UNAVAILABLE", "a stop would mean that it is not stored");
    while let Ok(Some(_)) = frames.message().await {}
    drop((client, frames));
    let error = server.running.await.expect("no panic").expect_err("a fault");
    assert!(matches!(error, app::Error::Broken), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn large_requests_wait_for_permits_and_small_ones_do_not() {
    let server = TestServer::start(Backend::Sqlite).await;
    // Each announces a large body, and then sends very little.
    let size = MAX_REQUEST_BYTES;
    let share = MAX_READING_BYTES / CALLER_SHARE;
    let mut large = JoinSet::new();
    for _ in 0..share / size {
        let mut connection = TcpStream::connect(server.address).await.expect("connect");
        let head = "POST /publish HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n";
        let head = format!("{head}Content-Length: {size}\r\n\r\n[");
        connection.write_all(head.as_bytes()).await.expect("send");
        large.spawn(async move {
            while connection.write_all(b" ").await.is_ok() {
                sleep(READING_STALL_TIMEOUT / 10).await;
            }
        });
    }
    let reading = format!("event_aggregator_reading_bytes {share}\n");
    while !get(server.address, "/metrics").await.body.contains(&reading) {}
    let mut client = server.client().await;
    publish(&mut client, vec![event("t", "1")]).await;
    let payload = format!(r#"{{"data":"{}"}}"#, "x".repeat(SMALL_REQUEST_BYTES * 2));
    let mut caller = client.clone();
    let event = event_with("t", "2", &payload);
    let waiting = tokio::spawn(async move { publish(&mut caller, vec![event]).await });
    publish(&mut client, vec![crate::harness::event("t", "3")]).await;
    // Those above, the waiting one, and this one.
    let calls = format!("event_aggregator_calls_in_progress {}\n", share / size + 2);
    while !get(server.address, "/metrics").await.body.contains(&calls) {}
    assert!(!waiting.is_finished(), "it was read although its caller's share is used");
    large.shutdown().await;
    assert_eq!(waiting.await.expect("an answer").unique_processed, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn stalled_readers_do_not_delay_shutdown() {
    let server = TestServer::start(Backend::Sqlite).await;
    let address = server.address;
    let mut client = server.client().await;
    let payload = format!(r#"{{"data":"{}"}}"#, "x".repeat(900 << 10));
    for id in 0..16 {
        publish(&mut client, vec![event_with("t", &id.to_string(), &payload)]).await;
    }
    // One does not open its flow-control window, the other does not even read.
    let frames = client.subscribe(SubscribeRequest::default()).await.expect("feed").into_inner();
    let mut unread = TcpStream::connect(address).await.expect("connect");
    let request = b"GET /events/stream?cursor=beginning HTTP/1.1\r\nHost: x\r\n\r\n";
    unread.write_all(request).await.expect("send");
    unread.readable().await.expect("an answer");
    let mut idle = TcpStream::connect(address).await.expect("connect");
    let settings = [0, 0, 0, 4, 0, 0, 0, 0, 0];
    idle.write_all(&[&b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"[..], &settings].concat())
        .await
        .expect("send");
    idle.readable().await.expect("settings");

    let begun = Instant::now();
    let stopping = tokio::spawn(server.stop());
    while TcpStream::connect(address).await.is_ok() {}
    assert!(!stopping.is_finished(), "new connections are refused at once");
    stopping.await.expect("stopped");
    let longest = DRAIN_TIMEOUT + FLUSH_TIMEOUT;
    assert!(begun.elapsed() < longest, "{:?}", begun.elapsed());
    let mut told = Vec::new();
    let _ = idle.read_to_end(&mut told).await;
    assert!(kinds(&told).contains(&GOAWAY), "{told:?}");
    drop((frames, unread));
}

const GOAWAY: u8 = 7;

/// Frame types of HTTP/2.
fn kinds(mut frames: &[u8]) -> Vec<u8> {
    let mut kinds = Vec::new();
    while let [a, b, c, kind, _, _, _, _, _, rest @ ..] = frames {
        kinds.push(*kind);
        let length = u32::from_be_bytes([0, *a, *b, *c]) as usize;
        frames = rest.get(length..).unwrap_or_default();
    }
    kinds
}
