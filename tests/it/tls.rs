//! TLS of the service and of its commands.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    time::Instant,
};

use event_aggregator::{
    proto::v1::{ListEventsRequest, PublishRequest},
    testing::{grpc::SERVICE_NAME, limits::OPENING_TIMEOUT},
};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair,
};
use tempfile::TempDir;
use testkit::{process::Service, wait_until};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};
use tonic::{
    Code, Request, Status,
    transport::{
        Certificate, Channel, ClientTlsConfig, Identity, Server, ServerTlsConfig,
        server::TcpIncoming,
    },
};
use tonic_health::ServingStatus;

use crate::{
    access::{entry, grant},
    harness::*,
};

async fn run(mut command: Command) -> Output {
    let run = move || command.output().expect("run");
    tokio::task::spawn_blocking(run).await.expect("run")
}

/// A certificate authority, with the directory of its certificates.
pub struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    folder: TempDir,
}

impl Authority {
    pub fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).expect("no names");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("a key");
        let issuer = CertifiedIssuer::self_signed(params, key).expect("an authority");
        let folder = tempfile::tempdir().expect("temporary folder");
        fs::write(folder.path().join("ca.pem"), issuer.pem()).expect("write");
        Self { issuer, folder }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn text(&self, name: &str) -> String {
        self.path(name).display().to_string()
    }

    /// Writes a certificate for localhost, and its key.
    pub fn issue(&self, name: &str, purpose: ExtendedKeyUsagePurpose) {
        self.issue_for(&["localhost"], name, purpose);
    }

    /// Writes a certificate for these hosts, and its key.
    fn issue_for(&self, hosts: &[&str], name: &str, purpose: ExtendedKeyUsagePurpose) {
        self.issue_with(hosts, name, purpose, |_| ());
    }

    /// The same with a modified certificate.
    pub fn issue_with(
        &self,
        hosts: &[&str],
        name: &str,
        purpose: ExtendedKeyUsagePurpose,
        change: impl FnOnce(&mut CertificateParams),
    ) {
        let hosts: Vec<String> = hosts.iter().map(|&host| host.to_owned()).collect();
        let mut params = CertificateParams::new(hosts).expect("names");
        change(&mut params);
        params.distinguished_name.push(DnType::CommonName, name);
        params.extended_key_usages = vec![purpose];
        let key = KeyPair::generate().expect("a key");
        let certificate = params.signed_by(&key, &self.issuer).expect("a certificate");
        fs::write(self.path(&format!("{name}.key")), key.serialize_pem()).expect("write");
        fs::write(self.path(&format!("{name}.pem")), certificate.pem()).expect("write");
    }

    pub fn identity(&self, name: &str) -> Identity {
        let read = |name: String| fs::read(self.path(&name)).expect("read");
        Identity::from_pem(read(format!("{name}.pem")), read(format!("{name}.key")))
    }

    /// TLS configuration of a client that trusts this CA.
    pub fn trusted(&self) -> ClientTlsConfig {
        let authority = fs::read(self.path("ca.pem")).expect("read");
        ClientTlsConfig::new().ca_certificate(Certificate::from_pem(authority))
    }

    /// Starts a service with the certificate `server`, and its log in a file.
    fn command(&self, database: &TestDatabase, more: &[&str]) -> Command {
        let mut command = program();
        command
            .args(["serve", "--listen", "127.0.0.1:0", "--database-url", &database.url_text()])
            .args(["--tls-cert", &self.text("server.pem")])
            .args(["--tls-key", &self.text("server.key")])
            .args(more)
            .stderr(fs::File::create(self.path("log")).expect("a file"));
        command
    }

    pub fn serve(&self, database: &TestDatabase, more: &[&str]) -> Service {
        Service::run(&mut self.command(database, more))
    }

    pub fn log(&self) -> String {
        fs::read_to_string(self.path("log")).expect("text")
    }
}

pub fn channel(service: &Service, tls: ClientTlsConfig) -> Channel {
    let address = format!("https://localhost:{}", service.address.port());
    let endpoint = Channel::from_shared(address).expect("an address").tls_config(tls);
    endpoint.expect("certificates").connect_lazy()
}

pub async fn client(service: &Service, tls: ClientTlsConfig) -> Result<Client, tonic::Status> {
    // With TLS 1.3, a client learns only from the first read that it was rejected.
    let mut client = Client::new(channel(service, tls));
    client.get_stats(event_aggregator::proto::v1::GetStatsRequest::default()).await?;
    Ok(client)
}

#[tokio::test(flavor = "multi_thread")]
async fn tls_service_rejects_plaintext() {
    let authority = Authority::new();
    authority.issue("server", ExtendedKeyUsagePurpose::ServerAuth);
    let database = TestDatabase::new(Backend::Sqlite).await;
    let service = authority.serve(&database, &[]);
    let mut over_grpc = client(&service, authority.trusted()).await.expect("trusted");
    publish(&mut over_grpc, vec![event("t", "1")]).await;
    client(&service, Authority::new().trusted()).await.expect_err("not trusted");

    let port = service.address.port();
    let mut curl = Command::new("curl");
    curl.args(["-sS", "--http1.1", "--cacert", &authority.text("ca.pem")])
        .args(["--json", r#"{"topic":"t","event_id":"1","source":"test","payload":{}}"#])
        .arg(format!("https://localhost:{port}/publish"));
    let answered = run(curl).await;
    let answer = String::from_utf8_lossy(&answered.stdout).into_owned();
    assert!(answer.contains("duplicate"), "{answer} {answered:?}");

    let mut command = program();
    command.args(["stats", "-o", "json", "--addr", &format!("localhost:{port}")]);
    command.args(["--ca", &authority.text("ca.pem")]);
    let answered = run(command).await;
    assert!(answered.status.success(), "{answered:?}");

    for plain in
        [&b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"[..], b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"]
    {
        let mut connection = TcpStream::connect(service.address).await.expect("connect");
        connection.write_all(plain).await.expect("send");
        let mut answer = Vec::new();
        let _ = connection.read_to_end(&mut answer).await;
        assert!(!String::from_utf8_lossy(&answer).contains("HTTP"), "{answer:?}");
    }
    // A stalled handshake times out.
    let begun = Instant::now();
    let mut silent = TcpStream::connect(service.address).await.expect("connect");
    silent.write_all(&[0x16, 0x03, 0x01]).await.expect("send");
    let _ = silent.read_to_end(&mut Vec::new()).await;
    assert!((OPENING_TIMEOUT / 2..OPENING_TIMEOUT * 3).contains(&begun.elapsed()));
}

#[tokio::test(flavor = "multi_thread")]
async fn client_ca_requires_client_certificates() {
    let (authority, foreign) = (Authority::new(), Authority::new());
    authority.issue("server", ExtendedKeyUsagePurpose::ServerAuth);
    for authority in [&authority, &foreign] {
        authority.issue("producer", ExtendedKeyUsagePurpose::ClientAuth);
    }
    let database = TestDatabase::new(Backend::Sqlite).await;
    let service = authority.serve(&database, &["--tls-client-ca", &authority.text("ca.pem")]);
    let with = |identity| authority.trusted().identity(identity);
    let mut known =
        client(&service, with(authority.identity("producer"))).await.expect("a known client");
    publish(&mut known, vec![event("t", "1")]).await;
    client(&service, authority.trusted()).await.expect_err("no certificate");
    client(&service, with(foreign.identity("producer"))).await.expect_err("a foreign one");
    client(&service, with(authority.identity("server"))).await.expect_err("for servers");

    let address = format!("https://localhost:{}", service.address.port());
    let mut command = program();
    command.args(["health", "--addr", &address, "--ca", &authority.text("ca.pem")]);
    command.args(["--client-cert", &authority.text("producer.pem")]);
    command.args(["--client-key", &authority.text("producer.key")]);
    let answered = run(command).await;
    assert_eq!(String::from_utf8_lossy(&answered.stdout), "serving\n", "{answered:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn certificate_identifies_the_caller_without_token() {
    const BEARER: &str = "Bearer token-of-root";
    let authority = Authority::new();
    authority.issue("server", ExtendedKeyUsagePurpose::ServerAuth);
    // Any DNS name of the certificate counts; the common name does not.
    let hosts: [&[&str]; 3] = [&["localhost", "Producer"], &["shop.test"], &[]];
    for (name, hosts) in ["producer", "shop", "stranger"].into_iter().zip(hosts) {
        authority.issue_for(hosts, name, ExtendedKeyUsagePurpose::ClientAuth);
    }
    let known = |certificate: &str, topics| {
        let grants = grant("publish", topics);
        format!(
            "[[identity]]\nname = \"{certificate}\"\ncertificate = \"{certificate}\"\ngrants = [{grants}]\n"
        )
    };
    let root = entry("root", &grant("publish read admin", "*"));
    let (producer, shop) = (known("producer", "orders"), known("SHOP.test", "shop"));
    let identities = [producer, shop, known("stranger", "orders"), root].concat();
    fs::write(authority.path("access.toml"), identities).expect("write");
    let database = TestDatabase::new(Backend::Sqlite).await;
    let (ca, access) = (authority.text("ca.pem"), authority.text("access.toml"));
    let flags = ["--tls-client-ca", &ca, "--access", &access];
    let service = Service::run(authority.command(&database, &flags).env("RUST_LOG", "trace"));

    for (name, token, topic, may_publish, may_read) in [
        ("producer", None, "orders", Code::Ok, Code::PermissionDenied),
        ("producer", None, "shop", Code::PermissionDenied, Code::PermissionDenied),
        ("shop", None, "shop", Code::Ok, Code::PermissionDenied),
        ("stranger", None, "orders", Code::Unauthenticated, Code::Unauthenticated),
        // A token takes precedence over a certificate.
        ("stranger", Some(BEARER), "orders", Code::Ok, Code::Ok),
        ("producer", Some(BEARER), "shop", Code::Ok, Code::Ok),
        ("producer", Some("Bearer wrong"), "orders", Code::Unauthenticated, Code::Unauthenticated),
    ] {
        let identity = authority.identity(name);
        let channel = channel(&service, authority.trusted().identity(identity));
        let mut client = Client::with_interceptor(channel, move |mut request: Request<()>| {
            if let Some(token) = token {
                request.metadata_mut().insert("authorization", token.parse().expect("a header"));
            }
            Ok(request)
        });
        let code = |refused: Option<Status>| refused.map_or(Code::Ok, |status| status.code());
        let request = PublishRequest { events: vec![event(topic, "1")], allow_partial: false };
        assert_eq!(code(client.publish(request).await.err()), may_publish, "{name} {token:?}");
        let all = ListEventsRequest::default();
        assert_eq!(code(client.list_events(all).await.err()), may_read, "{name} {token:?}");

        let body = format!(r#"{{"topic":"{topic}","event_id":"1","source":"test"}}"#);
        for (what, expected) in
            [(&["--json", &body, "publish"][..], may_publish), (&["events"], may_read)]
        {
            let expected = match expected {
                Code::Ok => "200",
                Code::PermissionDenied => "403",
                _ => "401",
            };
            let (path, with) = what.split_last().expect("a path");
            let mut curl = Command::new("curl");
            curl.args(["-sS", "-o", "/dev/null", "-w", "%{http_code}", "--cacert", &ca]).args(with);
            curl.args(["--cert", &authority.text(&format!("{name}.pem"))]);
            curl.args(["--key", &authority.text(&format!("{name}.key"))]);
            if let Some(token) = token {
                curl.args(["-H", &format!("authorization: {token}")]);
            }
            curl.arg(format!("https://localhost:{}/{path}", service.address.port()));
            let answered = run(curl).await;
            let status = String::from_utf8_lossy(&answered.stdout);
            assert_eq!(status, expected, "{name} {token:?} {path}: {answered:?}");
        }
    }
    // Even the most verbose log has no keys or tokens.
    let (log, key) = (authority.log(), fs::read_to_string(authority.path("server.key")));
    assert!(log.contains("TRACE"), "it said much");
    let key = key.expect("text");
    let secrets = key.lines().filter(|line| !line.starts_with("---")).chain(["token-of-root"]);
    for secret in secrets {
        assert!(!log.contains(secret), "{secret} was logged");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn container_health_check_needs_no_token() {
    let authority = Authority::new();
    authority.issue("server", ExtendedKeyUsagePurpose::ServerAuth);
    let by_certificate = "[[identity]]\nname = \"x\"\ncertificate = \"x.test\"\ngrants = []\n";
    fs::write(authority.path("access.toml"), by_certificate).expect("write");
    let database = TestDatabase::new(Backend::Sqlite).await;
    let serve = |listen: &str, more: &[&str]| {
        let mut command = program();
        command
            .args(["serve", "--listen", listen, "--database-url", &database.url_text()])
            .args(["--access", &authority.text("access.toml")])
            .args(more)
            .stderr(fs::File::create(authority.path("log")).expect("a file"));
        Service::run(&mut command)
    };
    let (certificate, key) = (authority.text("server.pem"), authority.text("server.key"));
    let tls = ["--tls-cert", &*certificate, "--tls-key", &key];
    let service = serve("0.0.0.0:0", &[&tls[..], &["--insecure"]].concat());
    let mut health = program();
    let address = format!("https://localhost:{}", service.address.port());
    health.arg("health").env("EVENT_AGGREGATOR_ADDR", address);
    health.env("EVENT_AGGREGATOR_CA", authority.text("ca.pem"));
    let answered = run(health).await;
    assert_eq!(String::from_utf8_lossy(&answered.stdout), "serving\n", "{answered:?}");
    // The useless setting is logged, and no warning about exposure.
    assert!(authority.log().contains("client certificates require --tls-client-ca"));
    assert!(!authority.log().contains("is reachable without TLS"), "{}", authority.log());
    drop(service);

    drop(serve("0.0.0.0:0", &["--insecure"]));
    assert!(authority.log().contains("is reachable without TLS"), "{}", authority.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn valid_certificates_are_reloaded_and_invalid_ones_ignored() {
    let (old, new) = (Authority::new(), Authority::new());
    for authority in [&old, &new] {
        authority.issue("server", ExtendedKeyUsagePurpose::ServerAuth);
    }
    let database = TestDatabase::new(Backend::Sqlite).await;
    let service = old.serve(&database, &[]);
    let mut connected = client(&service, old.trusted()).await.expect("trusted");

    let replace = |from: &Path, file: &str| {
        fs::copy(from, old.path("next")).expect("copy");
        fs::rename(old.path("next"), old.path(file)).expect("rename");
    };
    // A certificate that does not match its key is ignored.
    replace(&new.path("server.pem"), "server.pem");
    service.signal("HUP");
    wait_until(|| old.log().contains("failed to reload certificate"));
    publish(&mut connected, vec![event("t", "1")]).await;
    client(&service, old.trusted()).await.expect("old certificate still in use");
    replace(&new.path("server.key"), "server.key");
    service.signal("HUP");
    // New connections soon get the new one.
    while client(&service, new.trusted()).await.is_err() {}
    client(&service, old.trusted()).await.expect_err("old certificate replaced");
    publish(&mut connected, vec![event("t", "2")]).await;

    // Changes are detected without a signal, too.
    let next = Authority::new();
    next.issue("server", ExtendedKeyUsagePurpose::ServerAuth);
    replace(&next.path("server.key"), "server.key");
    replace(&next.path("server.pem"), "server.pem");
    while client(&service, next.trusted()).await.is_err() {}
    publish(&mut connected, vec![event("t", "3")]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn missing_file_is_logged_once() {
    let authority = Authority::new();
    authority.issue("server", ExtendedKeyUsagePurpose::ServerAuth);
    let database = TestDatabase::new(Backend::Sqlite).await;
    let _service = authority.serve(&database, &[]);
    let certificate = authority.path("server.pem");
    let text = fs::read(&certificate).expect("read");
    fs::remove_file(authority.path("server.key")).expect("remove");
    // Each reload consumes one of these pipes and then fails on the missing key.
    for _ in 0..3 {
        let pipe = authority.path("pipe");
        assert!(Command::new("mkfifo").arg(&pipe).status().expect("mkfifo").success());
        fs::rename(pipe, &certificate).expect("rename");
        fs::write(&certificate, &text).expect("write");
    }
    assert_eq!(
        authority.log().matches("failed to reload certificate").count(),
        1,
        "{}",
        authority.log()
    );
}

#[test]
fn certificate_errors_are_one_line() {
    let authority = Authority::new();
    authority.issue("server", ExtendedKeyUsagePurpose::ServerAuth);
    authority.issue("other", ExtendedKeyUsagePurpose::ServerAuth);
    fs::write(authority.path("empty"), "").expect("write");
    let (certificate, key) = (authority.text("server.pem"), authority.text("server.key"));
    let (empty, other) = (authority.text("empty"), authority.text("other.key"));
    for (flags, expected) in [
        (&["--tls-cert", &*certificate][..], "--tls-cert requires --tls-key"),
        (&["--tls-key", &key], "--tls-key requires --tls-cert"),
        (&["--tls-client-ca", &certificate], "--tls-client-ca requires --tls-cert"),
        (&["--tls-cert", "nowhere", "--tls-key", &key], "cannot read nowhere"),
        (&["--tls-cert", &empty, "--tls-key", &key], "no certificate found"),
        (&["--tls-cert", &certificate, "--tls-key", &certificate], "no private key found"),
        (&["--tls-cert", &certificate, "--tls-key", &other], "as --tls-cert"),
    ] {
        let mut command = program();
        command.args(["serve", "--listen", "127.0.0.1:0", "--data-dir", &authority.text("data")]);
        let output = command.args(flags).stdin(Stdio::null()).output().expect("run");
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.contains(expected) && said.lines().count() == 1, "{expected}: {said}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn commands_verify_the_server_certificate() {
    let own = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("certificate");
    let (certificate, key) = (own.cert.pem(), own.signing_key.serialize_pem());
    let (reporter, health) = tonic_health::server::health_reporter();
    reporter.set_service_status(SERVICE_NAME, ServingStatus::Serving).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
    let address = format!("https://localhost:{}", listener.local_addr().expect("address").port());
    let tls = ServerTlsConfig::new().identity(Identity::from_pem(&certificate, key));
    let server = Server::builder().tls_config(tls).expect("a certificate").add_service(health);
    tokio::spawn(server.serve_with_incoming(TcpIncoming::from(listener)));

    let folder = tempfile::tempdir().expect("temporary folder");
    let trusted = folder.path().join("trusted.pem");
    std::fs::write(&trusted, certificate).expect("write");
    let mut command = program();
    command.args(["health", "--addr", &address]).env("SSL_CERT_FILE", &trusted);
    let answered = run(command).await;
    let said = String::from_utf8_lossy(&answered.stderr);
    assert_eq!(String::from_utf8_lossy(&answered.stdout), "serving\n", "{said}");

    let other = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("certificate");
    std::fs::write(&trusted, other.cert.pem()).expect("write");
    let mut command = program();
    command.args(["stats", "--addr", &address]).env("SSL_CERT_FILE", &trusted);
    let refused = run(command).await;
    assert_eq!(refused.status.code(), Some(1));
    let said = String::from_utf8_lossy(&refused.stderr);
    assert!(said.contains("certificate"), "{said}");
}
