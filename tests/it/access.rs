//! Access control: tokens, grants and rate limits, over every protocol.

use std::{fs, net::SocketAddr, path::PathBuf, sync::Arc};

use event_aggregator::{
    config::Config,
    proto::v1::{
        BatchGetEventsRequest, GetStatsRequest, ListEventsRequest, PublishRequest,
        PublishStreamRequest, SubscribeRequest,
        event_aggregator_service_client::EventAggregatorServiceClient,
    },
    testing::access::{self, AccessFile, Verb},
};
use prost::Message;
use serde_json::json;
use sha2::{Digest, Sha256};
use testkit::http::Response;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::mpsc,
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Request, Status, service::interceptor::InterceptedService, transport::Channel};

use crate::harness::*;

mod changes;
mod command;
mod elsewhere;
mod file;
mod grants;
mod protocols;
mod rate;
mod role;
mod secrets;

pub type Bearer = Box<dyn FnMut(Request<()>) -> Result<Request<()>, Status> + Send + Sync>;
pub type Caller = EventAggregatorServiceClient<InterceptedService<Channel, Bearer>>;

/// An access-file entry whose token is `token-of-` and the name.
pub fn entry(name: &str, grants: &str) -> String {
    let digest = Sha256::digest(format!("token-of-{name}"));
    let digest: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("[[identity]]\nname = \"{name}\"\ntoken_sha256 = [\"{digest}\"]\ngrants = [{grants}]\n")
}

/// A grant of verbs on topics.
pub fn grant(verbs: &str, topics: &str) -> String {
    let list = |words: &str| format!("{:?}", words.split(' ').collect::<Vec<_>>());
    format!("{{ verbs = {}, topics = {} }}", list(verbs), list(topics))
}

/// The access file of these tests.
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
        let config = Config { access: Some(file.clone()), ..config_for(&database.url) };
        Self { server: TestServer::with(database, &config).await, file }
    }

    /// Replaces the file atomically, as tools do.
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

    async fn get(&self, name: &str, path: &str) -> Response {
        let head = format!("GET {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n");
        let token = format!("Authorization: Bearer token-of-{name}\r\n\r\n");
        call(&self.server, head + &token).await
    }

    async fn post(&self, name: &str, body: &str) -> Response {
        let request = format!(
            "POST /publish HTTP/1.1\r\nHost: test\r\nConnection: close\r\nContent-Length: {}\r\n\
             Content-Type: application/json\r\nAuthorization: Bearer token-of-{name}\r\n\r\n{body}",
            body.len()
        );
        call(&self.server, request).await
    }
}

/// A client that sends this `authorization` header.
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

/// Asserts that a call was rejected with this code.
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

#[tokio::test(flavor = "multi_thread")]
async fn unauthenticated_calls_get_identical_errors() {
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
                // The announced body is never sent; the service must not wait for it.
                let length = if method == "POST" { "Content-Length: 1000000\r\n" } else { "" };
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
async fn certificate_authenticates_without_token() {
    let file = tempfile::NamedTempFile::new().expect("a file");
    let grants = grant("read", "orders");
    let text =
        format!("[[identity]]\nname = \"shop\"\ncertificate = \"Shop.Test\"\ngrants = [{grants}]");
    fs::write(&file, text).expect("write");
    let access = AccessFile::open(file.path()).await.expect("a policy").access();
    let [shop, other]: [Arc<[String]>; 2] = [&["web.test", "shop.test"][..], &["shop", "test"]]
        .map(|names| names.iter().map(|&name| name.to_owned()).collect());
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
async fn grpc_web_requires_authentication() {
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
