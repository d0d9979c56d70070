//! PostgreSQL over TLS: remote servers require it, and their certificate is verified.

use std::{net::TcpListener, path::Path};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use testkit::{postgres::Server, wait_until};

use crate::harness::*;

/// A certificate authority.
fn authority() -> CertifiedIssuer<'static, KeyPair> {
    let mut params = CertificateParams::new(vec![]).expect("parameters");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(params, KeyPair::generate().expect("key")).expect("certificate")
}

/// A server with TLS, whose certificate is for db.example.
async fn start(signed_by: &CertifiedIssuer<'static, KeyPair>) -> (Server, u16) {
    let port =
        TcpListener::bind("127.0.0.1:0").expect("bind").local_addr().expect("address").port();
    let starting = tokio::task::spawn_blocking(move || Server::start_on(port));
    let server = starting.await.expect("started");
    let key = KeyPair::generate().expect("key");
    let params = CertificateParams::new(vec!["db.example".to_owned()]).expect("parameters");
    let certificate = params.signed_by(&key, signed_by).expect("certificate");
    server.write("data/server.crt", &certificate.pem());
    server.write("data/server.key", &key.serialize_pem());
    server.set("ssl = on").await;
    (server, port)
}

#[tokio::test(flavor = "multi_thread")]
async fn remote_server_requires_tls() {
    let ours = authority();
    let (server, port) = start(&ours).await;
    let folder = tempfile::tempdir().expect("temporary folder");
    let file = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).expect("write");
        path.to_str().expect("UTF-8").to_owned()
    };
    let trusted = file("trusted.pem", &ours.pem());
    let other = file("other.pem", &authority().pem());
    let empty = file("empty.pem", "nothing");
    // The host name is remote, its address is local.
    let at = |host: &str, more: &str| {
        format!("postgres://postgres@{host}:{port}/postgres?hostaddr=127.0.0.1{more}")
    };
    let refused = |url: String, expected: &[&str]| {
        fails(&["serve", "--listen", "127.0.0.1:0", "--database-url", &url], 1, expected);
        fails(&["verify", "--database-url", &url], 1, expected);
    };

    let sessions = |encrypted: bool| {
        let sql = format!(
            "SELECT count(*) FROM pg_stat_activity JOIN pg_stat_ssl USING (pid)
             WHERE application_name = 'event-aggregator' AND ssl = {encrypted}"
        );
        let url = server.url.clone();
        async move { connect(&url).await.query_one(&sql, &[]).await.expect("count").get::<_, i64>(0) }
    };
    for mode in ["", "&sslmode=prefer", "&sslmode=require", "&sslmode=verify-full"] {
        let url = at("db.example", &format!("&sslrootcert={trusted}{mode}"));
        let service = serve(&url);
        let mut client = connect_to(service.address).await;
        publish(&mut client, vec![event("t", &url)]).await;
        stats(&mut client).await;
        assert!(sessions(true).await >= 2, "one for commits and one for reads");
        assert_eq!(sessions(false).await, 0);
        let verified = program().args(["verify", "--database-url", &url]).output().expect("run");
        assert!(verified.status.success(), "{verified:?}");
    }
    let url = at("db.example", "");
    refused(url.clone(), &["not signed by a trusted CA", "sslrootcert=FILE"]);
    refused(
        format!("{url}&sslrootcert={other}"),
        &["not signed by a trusted CA", "sslrootcert=FILE"],
    );
    refused(format!("{url}&sslrootcert={empty}"), &["empty.pem", "PEM"]);
    let nowhere = Path::new(&empty).with_file_name("nowhere");
    refused(format!("{url}&sslrootcert={}", nowhere.display()), &["cannot read", "nowhere"]);
    let misnamed = at("other.example", &format!("&sslrootcert={trusted}"));
    refused(misnamed, &["db.example", "does not match the host name"]);

    // Nothing is sent in plaintext at runtime either.
    let url = at("db.example", &format!("&sslrootcert={trusted}"));
    let service = serve(&url);
    let mut client = connect_to(service.address).await;
    server.set("ssl = off").await;
    refused(url, &["does not support TLS", "sslmode=disable"]);
    let cut = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
               WHERE application_name = 'event-aggregator'";
    connect(&server.url).await.batch_execute(cut).await.expect("cut");
    let mut caller = client.clone();
    let publishing =
        tokio::spawn(async move { publish(&mut caller, vec![event("t", "last")]).await });
    let health = || {
        let mut health = program();
        health.args(["health", "--addr", &service.address.to_string()]);
        health.output().expect("health").status.success()
    };
    wait_until(|| !health());
    assert!(!publishing.is_finished());
    assert_eq!(sessions(false).await, 0);
    server.set("ssl = on").await;
    assert_eq!(publishing.await.expect("an answer").unique_processed, 1);
    assert_eq!(counters(&mut client).await, [5, 5, 0, 0]);
    assert_eq!(sessions(false).await, 0);

    // Plaintext is possible if the URL asks for it.
    drop(service);
    let service = serve(&at("db.example", "&sslmode=disable"));
    assert_eq!(counters(&mut connect_to(service.address).await).await, [5, 5, 0, 0]);
}
