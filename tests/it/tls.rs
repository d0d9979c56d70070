//! Commands and a service behind TLS.

use std::process::{Command, Output};

use event_aggregator::grpc::SERVICE_NAME;
use tokio::net::TcpListener;
use tonic::transport::{Identity, Server, ServerTlsConfig, server::TcpIncoming};
use tonic_health::ServingStatus;

use crate::process::program;

async fn run(mut command: Command) -> Output {
    let run = move || command.output().expect("run");
    tokio::task::spawn_blocking(run).await.expect("run")
}

#[tokio::test(flavor = "multi_thread")]
async fn commands_reach_a_service_behind_tls_if_its_certificate_is_trusted() {
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
