//! Who may do what: tokens, grants and rates, on every way into the service.

use std::{fs, net::SocketAddr, path::PathBuf, time::Duration};

use event_aggregator::{
    access::{self, AccessFile, Verb},
    config::Config,
    proto::v1::{
        BatchGetEventsRequest, Event, EventKey, GetStatsRequest, ListEventsRequest, PublishRequest,
        PublishResponse, PublishStatus, PublishStreamRequest, SubscribeRequest, SubscribeResponse,
        event_aggregator_service_client::EventAggregatorServiceClient, subscribe_response::Frame,
    },
};
use prost::Message;
use serde_json::json;
use sha2::{Digest, Sha256};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::mpsc,
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{
    Code, Request, Status, Streaming, service::interceptor::InterceptedService, transport::Channel,
};
use tonic_types::StatusExt;

use crate::{
    conformance::{
        http::{Answer, call, get},
        on_both_stores,
    },
    harness::*,
};

mod command;
mod file;
mod role;
mod secrets;

on_both_stores!(
    reading_is_granted_by_topic,
    publishing_is_granted_by_topic,
    what_one_may_read_opens_nothing_else,
);

pub type Bearer = Box<dyn FnMut(Request<()>) -> Result<Request<()>, Status> + Send + Sync>;
pub type Caller = EventAggregatorServiceClient<InterceptedService<Channel, Bearer>>;

/// The entry of somebody whose token is the name.
fn entry(name: &str, grants: &str) -> String {
    let digest = Sha256::digest(format!("token-of-{name}"));
    let digest: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("[[identity]]\nname = \"{name}\"\ntoken_sha256 = [\"{digest}\"]\ngrants = [{grants}]\n")
}

/// Grants of verbs on topics.
fn grant(verbs: &str, topics: &str) -> String {
    let list = |words: &str| format!("{:?}", words.split(' ').collect::<Vec<_>>());
    format!("{{ verbs = {}, topics = {} }}", list(verbs), list(topics))
}

/// Those who call in these tests.
fn everybody() -> String {
    [
        entry("root", &grant("publish read admin", "*")),
        entry("shop", &grant("publish read", "orders shop.*")),
        entry("reader", &grant("read", "*")),
        entry("nobody", ""),
    ]
    .concat()
}

/// A service with an access file.
pub struct Guarded {
    pub server: TestServer,
    file: PathBuf,
}

impl Guarded {
    pub async fn start(backend: Backend) -> Self {
        Self::with(backend, &everybody()).await
    }

    async fn with(backend: Backend, text: &str) -> Self {
        let database = TestDatabase::new(backend).await;
        let file = database.path("access.toml");
        fs::write(&file, text).expect("write");
        let config = Config { access: Some(file.clone()), ..Config::local(database.url.clone()) };
        Self { server: TestServer::with(database, &config).await, file }
    }

    /// The file is replaced in one step, as tools do.
    fn rewrite(&self, text: &str) {
        let new = self.file.with_extension("new");
        fs::write(&new, text).expect("write");
        fs::rename(new, &self.file).expect("rename");
    }

    pub async fn caller(&self, name: &str) -> Caller {
        self.with_header(Some(format!("Bearer token-of-{name}"))).await
    }

    async fn with_header(&self, header: Option<String>) -> Caller {
        with_header(self.server.address, header).await
    }

    async fn get(&self, name: &str, path: &str) -> Answer {
        let head = format!("GET {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n");
        let token = format!("Authorization: Bearer token-of-{name}\r\n\r\n");
        call(&self.server, head + &token).await
    }

    async fn post(&self, name: &str, body: &str) -> Answer {
        let request = format!(
            "POST /publish HTTP/1.1\r\nHost: test\r\nConnection: close\r\nContent-Length: {}\r\n\
             Content-Type: application/json\r\nAuthorization: Bearer token-of-{name}\r\n\r\n{body}",
            body.len()
        );
        call(&self.server, request).await
    }
}

/// Somebody who sends this as `authorization`.
async fn with_header(address: SocketAddr, header: Option<String>) -> Caller {
    let bearer: Bearer = Box::new(move |mut request| {
        if let Some(header) = &header {
            let header = header.parse().expect("a header");
            request.metadata_mut().insert("authorization", header);
        }
        Ok(request)
    });
    Caller::new(InterceptedService::new(channel_to(address).await, bearer))
}

/// Whether a call was refused as it should be.
#[track_caller]
fn refused<T: std::fmt::Debug>(answer: Result<T, Status>, code: Code) -> Status {
    let status = answer.expect_err("refused");
    assert_eq!(status.code(), code, "{status:?}");
    let expected = match code {
        Code::Unauthenticated => "UNAUTHENTICATED",
        Code::PermissionDenied => "PERMISSION_DENIED",
        _ => "RATE_EXCEEDED",
    };
    assert_eq!(reason(&status), expected);
    status
}

fn request(topics: &[&str], allow_partial: bool) -> PublishRequest {
    let events = topics.iter().enumerate().map(|(n, topic)| event(topic, &n.to_string()));
    PublishRequest { events: events.collect(), allow_partial }
}

async fn publishing_is_granted_by_topic(backend: Backend) {
    let guarded = Guarded::start(backend).await;
    let mut shop = guarded.caller("shop").await;
    let taken = shop.publish(request(&["orders", "shop.eu"], false)).await.expect("granted");
    assert_eq!(taken.into_inner().unique_processed, 2);

    let status =
        refused(shop.publish(request(&["orders", "other"], false)).await, Code::PermissionDenied);
    assert_eq!(status.message(), "this needs a grant to publish the topic other");
    refused(shop.publish(request(&["ordersx"], false)).await, Code::PermissionDenied);
    let mut reader = guarded.caller("reader").await;
    refused(reader.publish(request(&["orders"], false)).await, Code::PermissionDenied);

    let partial = shop.publish(request(&["other", "shop.b", ""], true)).await.expect("partly");
    let partial = partial.into_inner();
    let codes: Vec<_> =
        partial.results.iter().map(|result| result.error.as_ref().map(|e| e.code)).collect();
    let (denied, invalid) = (Code::PermissionDenied as i32, Code::InvalidArgument as i32);
    assert_eq!(codes, [Some(denied), None, Some(invalid)]);
    assert_eq!((partial.unique_processed, partial.rejected), (1, 2));

    // A stream goes on.
    let (requests, stream) = mpsc::channel(4);
    for topics in [&["other", "shop.c"][..], &["shop.d"]] {
        let PublishRequest { events, .. } = request(topics, true);
        requests.send(PublishStreamRequest { events, ..Default::default() }).await.expect("room");
    }
    drop(requests);
    let mut answers =
        shop.publish_stream(ReceiverStream::new(stream)).await.expect("a stream").into_inner();
    let first = answers.message().await.expect("an answer").expect("one");
    assert_eq!(first.results[0].status(), PublishStatus::Rejected);
    assert_eq!(first.results[0].error.as_ref().map(|error| error.code), Some(denied));
    assert_eq!(first.results[1].status(), PublishStatus::Accepted);
    let second = answers.message().await.expect("an answer").expect("one");
    assert_eq!(second.unique_processed, 1);
    assert!(answers.message().await.expect("an end").is_none());

    let body = |topic: &str| format!(r#"{{"topic":"{topic}","event_id":"h","source":"s"}}"#);
    assert_eq!(guarded.post("shop", &body("shop.e")).await.status, 200);
    let denied = guarded.post("shop", &body("other")).await;
    assert_eq!(denied.status, 403);
    assert_eq!(denied.json()["error"], "this needs a grant to publish the topic other");
    let both = format!("[{},{}]", body("shop.f"), body("other"));
    assert_eq!(guarded.post("shop", &both).await.status, 403);
    assert_eq!(guarded.server.stored().await, 6);
}

async fn reading_is_granted_by_topic(backend: Backend) {
    let guarded = Guarded::start(backend).await;
    let mut root = guarded.caller("root").await;
    root.publish(request(&["orders", "shop.eu", "other"], false)).await.expect("granted");
    let mut shop = guarded.caller("shop").await;
    let mut reader = guarded.caller("reader").await;
    let mut nobody = guarded.caller("nobody").await;

    for (topic, shop_may) in [("orders", true), ("shop.eu", true), ("other", false), ("", false)] {
        for (caller, may) in [(&mut shop, shop_may), (&mut reader, true), (&mut nobody, false)] {
            let topic = topic.to_owned();
            let topics: Vec<_> =
                Some(topic.clone()).filter(|topic| !topic.is_empty()).into_iter().collect();
            let list = ListEventsRequest { topic: topic.clone(), ..Default::default() };
            let stats = GetStatsRequest { topic, ..Default::default() };
            let subscribe = SubscribeRequest { topics, ..Default::default() };
            if may {
                caller.list_events(list).await.expect("granted");
                caller.get_stats(stats).await.expect("granted");
                caller.subscribe(subscribe).await.expect("granted");
            } else {
                refused(caller.list_events(list).await, Code::PermissionDenied);
                refused(caller.get_stats(stats).await, Code::PermissionDenied);
                refused(caller.subscribe(subscribe).await, Code::PermissionDenied);
            }
        }
    }
    let key = |topic: &str| EventKey { topic: topic.to_owned(), event_id: "0".to_owned() };
    let keys = |keys: Vec<EventKey>| BatchGetEventsRequest { keys, ..Default::default() };
    let found = shop.batch_get_events(keys(vec![key("orders")])).await.expect("granted");
    assert_eq!(found.into_inner().events.len(), 1);
    let both = keys(vec![key("orders"), key("other")]);
    refused(shop.batch_get_events(both).await, Code::PermissionDenied);
    let empty = shop.batch_get_events(keys(Vec::new())).await.expect_err("empty");
    assert_eq!(empty.code(), Code::InvalidArgument);

    // What the process counted is of all topics.
    let orders = GetStatsRequest { topic: "orders".to_owned(), ..Default::default() };
    let stats = shop.get_stats(orders.clone()).await.expect("granted").into_inner();
    assert_eq!((stats.received, stats.since_start), (1, None));
    assert!(reader.get_stats(orders).await.expect("granted").into_inner().since_start.is_some());

    for (path, shop_may) in [
        ("/events?topic=orders", true),
        ("/events?topic=other", false),
        ("/events", false),
        ("/events/orders/0", true),
        ("/events/other/2", false),
        ("/events/other/none", false),
        ("/stats?topic=shop.eu", true),
        ("/stats?topic=other", false),
        ("/stats", false),
        ("/events/stream?topic=other", false),
        ("/events/stream?topic=orders&topic=other", false),
        ("/events/stream", false),
    ] {
        let answer = guarded.get("shop", path).await;
        assert_eq!(answer.status, if shop_may { 200 } else { 403 }, "{path}");
        assert_eq!(guarded.get("nobody", path).await.status, 403, "{path}");
    }
    assert!(guarded.get("shop", "/stats?topic=orders").await.json().get("since_start").is_none());
    for (name, status) in [("root", 200), ("reader", 403), ("shop", 403)] {
        assert_eq!(guarded.get(name, "/metrics").await.status, status, "{name}");
    }
}

async fn what_one_may_read_opens_nothing_else(backend: Backend) {
    let guarded = Guarded::start(backend).await;
    let mut root = guarded.caller("root").await;
    root.publish(request(&["other", "other", "other", "orders"], false)).await.expect("granted");
    let listing = |topic: &str, page_token: &str| ListEventsRequest {
        topic: topic.to_owned(),
        page_size: 1,
        page_token: page_token.to_owned(),
        ..Default::default()
    };
    let page = root.list_events(listing("other", "")).await.expect("granted").into_inner();
    let token = page.next_page_token;
    assert!(!token.is_empty());
    let cursor = page.events[0].cursor.clone();

    let mut shop = guarded.caller("shop").await;
    refused(shop.list_events(listing("other", &token)).await, Code::PermissionDenied);
    let status = shop.list_events(listing("orders", &token)).await.expect_err("another listing");
    assert_eq!(fields_at_fault(&status), ["page_token"]);
    let path = format!("/events?topic=other&limit=1&page_token={token}");
    assert_eq!(guarded.get("shop", &path).await.status, 403);

    let subscription = |topics: &[&str], cursor: &str| SubscribeRequest {
        topics: topics.iter().map(|topic| (*topic).to_owned()).collect(),
        cursor: cursor.to_owned(),
        ..Default::default()
    };
    for cursor in [&*cursor, "beginning"] {
        refused(shop.subscribe(subscription(&["other"], cursor)).await, Code::PermissionDenied);
        refused(shop.subscribe(subscription(&[], cursor)).await, Code::PermissionDenied);
        let frames = shop.subscribe(subscription(&["orders"], cursor)).await.expect("granted");
        let topics = topics_until_caught_up(frames.into_inner()).await;
        assert!(topics.iter().all(|topic| topic == "orders"), "{topics:?}");
    }
    for path in [
        format!("/events/stream?cursor={cursor}"),
        format!("/events/stream?topic=other&cursor={cursor}"),
    ] {
        assert_eq!(guarded.get("shop", &path).await.status, 403);
    }
}

async fn topics_until_caught_up(mut frames: Streaming<SubscribeResponse>) -> Vec<String> {
    let mut topics = Vec::new();
    loop {
        match frames.message().await.expect("a frame").and_then(|response| response.frame) {
            Some(Frame::Events(batch)) => {
                topics.extend(batch.events.into_iter().map(|event| event.topic))
            }
            Some(Frame::CaughtUp(_)) => return topics,
            _ => (),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_not_known_gets_the_same_answer_everywhere() {
    let guarded = Guarded::start(Backend::Sqlite).await;
    let mut answers = Vec::new();
    for header in [
        None,
        Some("Bearer wrong"),
        Some("Bearer"),
        Some("token-of-root"),
        Some("Basic token-of-root"),
        Some("Bearer token-of-root token-of-root"),
    ] {
        let mut caller = guarded.with_header(header.map(str::to_owned)).await;
        let events = request(&["orders"], true);
        answers.push(refused(caller.publish(events).await, Code::Unauthenticated));
        answers.push(refused(
            caller.list_events(ListEventsRequest::default()).await,
            Code::Unauthenticated,
        ));
        answers.push(refused(
            caller.get_stats(GetStatsRequest::default()).await,
            Code::Unauthenticated,
        ));
        let keys = BatchGetEventsRequest::default();
        answers.push(refused(caller.batch_get_events(keys).await, Code::Unauthenticated));
        answers.push(refused(
            caller.subscribe(SubscribeRequest::default()).await,
            Code::Unauthenticated,
        ));
        let (_requests, stream) = mpsc::channel::<PublishStreamRequest>(1);
        let stream = caller.publish_stream(ReceiverStream::new(stream)).await;
        answers.push(refused(stream, Code::Unauthenticated));
    }
    assert!(answers.iter().all(|status| {
        (status.message(), status.details()) == (answers[0].message(), answers[0].details())
    }));

    let description = get(&guarded.server, "/openapi.json").await.json();
    let mut bodies = Vec::new();
    for (path, methods) in description["paths"].as_object().expect("paths") {
        for (method, call_of_it) in methods.as_object().expect("methods") {
            let path = path.replace("{topic}", "t").replace("{event_id}", "1");
            let method = method.to_uppercase();
            if call_of_it["security"] == json!([]) {
                assert_eq!(get(&guarded.server, &path).await.status, 200, "{path}");
                continue;
            }
            for header in ["", "Authorization: Bearer wrong\r\n", "Authorization: Basic x\r\n"] {
                // The body is announced and never comes: nobody waits for it.
                let length = if method == "POST" { "Content-Length: 1000\r\n" } else { "" };
                let request = format!("{method} {path}?x HTTP/1.1\r\nHost: test\r\n");
                let request = format!("{request}Connection: close\r\n{length}{header}\r\n");
                let answer = call(&guarded.server, request).await;
                assert_eq!(answer.status, 401, "{path} {header}");
                assert_eq!(answer.header("www-authenticate"), Some("Bearer"));
                bodies.push(answer.body);
            }
        }
    }
    assert!(bodies.len() >= 3 * 7);
    assert!(bodies.iter().all(|body| *body == bodies[0]));
    assert_eq!(get(&guarded.server, "/dashboard/dashboard.js").await.status, 200);
    let mut health = tonic_health::pb::health_client::HealthClient::new(
        channel_to(guarded.server.address).await,
    );
    health.check(tonic_health::pb::HealthCheckRequest::default()).await.expect("open");
    assert_eq!(guarded.server.stored().await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_counts_where_no_token_is_shown() {
    let file = tempfile::NamedTempFile::new().expect("a file");
    let grants = grant("read", "orders");
    let text =
        format!("[[identity]]\nname = \"shop\"\ncertificate = \"shop.test\"\ngrants = [{grants}]");
    fs::write(&file, text).expect("write");
    let access = AccessFile::open(file.path()).await.expect("a policy").access();
    let [shop, other] = ["shop.test", "shop"].map(std::sync::Arc::<str>::from);
    let identity = access.authenticate(None, Some(&shop)).expect("known");
    assert_eq!(identity.name(), Some("shop"));
    assert!(identity.may(Verb::Read, "orders") && !identity.may(Verb::Publish, "orders"));
    for (token, certificate) in
        [(None, Some(&other)), (None, None), (Some(&b"Bearer x"[..]), Some(&shop))]
    {
        let refused = access.authenticate(token, certificate).expect_err("not known");
        assert_eq!(refused, access::Error::Unauthenticated);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn browsers_prove_who_they_are_as_well() {
    let guarded = Guarded::start(Backend::Sqlite).await;
    let mut message = vec![0];
    let request = request(&["orders"], false);
    message.extend((request.encoded_len() as u32).to_be_bytes());
    request.encode(&mut message).expect("room");
    for (name, status) in [("stranger", "16"), ("nobody", "7"), ("shop", "0")] {
        let head = format!(
            "POST /event_aggregator.v1.EventAggregatorService/Publish HTTP/1.1\r\nHost: test\r\n\
             Connection: close\r\nContent-Type: application/grpc-web+proto\r\nX-Grpc-Web: 1\r\n\
             Authorization: Bearer token-of-{name}\r\nContent-Length: {}\r\n\r\n",
            message.len()
        );
        let mut connection = TcpStream::connect(guarded.server.address).await.expect("connect");
        connection.write_all(&[head.as_bytes(), &message].concat()).await.expect("send");
        let mut answer = Vec::new();
        connection.read_to_end(&mut answer).await.expect("an answer");
        let answer = String::from_utf8_lossy(&answer).to_lowercase().replace(": ", ":");
        assert!(answer.contains(&format!("grpc-status:{status}\r")), "{name}: {answer}");
    }
}

/// Sends until the answer is as it should be: a changed file is read within seconds.
async fn until(mut is_so: impl AsyncFnMut() -> bool) {
    let waiting = async {
        while !is_so().await {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), waiting).await.expect("waited in vain");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_file_holds_for_open_streams_too() {
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

    // A file with a fault changes nothing.
    guarded.rewrite("[[identity]]\nname = 1\n");
    requests.send(send("2")).await.expect("room");
    assert_eq!(answers.message().await.expect("an answer").expect("one").unique_processed, 1);

    // The reader loses its topic; the producer may still send it.
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

    // The producer loses the grant, and then its name.
    guarded.rewrite(&entry("shop", &grant("read", "orders")));
    until(async || {
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
async fn two_tokens_are_valid_while_they_are_exchanged() {
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
    until(async || guarded.get("shop", "/stats").await.status == 401).await;
    assert_eq!(guarded.get("new", "/stats").await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn server_sent_events_end_when_they_are_not_granted_any_more() {
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

#[tokio::test(flavor = "multi_thread")]
async fn a_rate_refuses_calls_and_slows_streams() {
    let with_rate = |rate: u32| {
        let limited = entry("shop", &grant("publish", "*"));
        let others = entry("root", &grant("publish admin", "*"));
        format!("{limited}events_per_second = {rate}\nburst = 1000\n{others}")
    };
    let guarded = Guarded::with(Backend::Sqlite, &with_rate(1)).await;
    let events = |from: usize, count: usize| -> Vec<Event> {
        (from..from + count).map(|n| event("orders", &n.to_string())).collect()
    };
    let mut shop = guarded.caller("shop").await;
    let publish = |events| PublishRequest { events, allow_partial: false };
    let taken: PublishResponse =
        shop.publish(publish(events(0, 1_000))).await.expect("the burst").into_inner();
    assert_eq!(taken.unique_processed, 1_000);
    let status =
        refused(shop.publish(publish(events(1_000, 1_000))).await, Code::ResourceExhausted);
    let wait =
        status.get_details_retry_info().and_then(|info| info.retry_delay).expect("RetryInfo");
    assert!(wait > Duration::ZERO && wait <= Duration::from_secs(1_000), "{wait:?}");
    let lines: Vec<String> = (0..1_000)
        .map(|n| format!(r#"{{"topic":"orders","event_id":"h{n}","source":"s"}}"#))
        .collect();
    let answer = guarded.post("shop", &format!("[{}]", lines.join(","))).await;
    assert_eq!(answer.status, 429);
    let seconds: u64 = answer.header("retry-after").expect("Retry-After").parse().expect("seconds");
    assert!((1..=1_000).contains(&seconds), "{seconds}");
    let mut root = guarded.caller("root").await;
    root.publish(publish(events(0, 1_000))).await.expect("without a rate");
    let metrics = guarded.get("root", "/metrics").await.body;
    let counted = r#"event_aggregator_rate_exceeded_events_total{identity="shop"} 2000"#;
    assert!(metrics.contains(counted), "{metrics}");

    // The stream is answered in the end, by no error: when it may go faster.
    let (requests, stream) = mpsc::channel(4);
    for from in [2_000, 3_000] {
        let request = PublishStreamRequest { events: events(from, 1_000), ..Default::default() };
        requests.send(request).await.expect("room");
    }
    drop(requests);
    let began = std::time::Instant::now();
    let mut answers =
        shop.publish_stream(ReceiverStream::new(stream)).await.expect("a stream").into_inner();
    guarded.rewrite(&with_rate(500));
    for _ in 0..2 {
        let answer = answers.message().await.expect("an answer").expect("one");
        assert_eq!(answer.unique_processed, 1_000);
    }
    // The first 1,000 are the burst; the others need two seconds.
    assert!(began.elapsed() >= Duration::from_millis(1_900), "{:?}", began.elapsed());
}
