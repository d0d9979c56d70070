//! Client certificates of open connections, which are verified again.

use std::{
    fs,
    process::{Child, Command, Stdio},
    time::{Duration, SystemTime},
};

use event_aggregator::proto::v1::{SubscribeRequest, SubscribeResponse, subscribe_response::Frame};
use rcgen::ExtendedKeyUsagePurpose;
use testkit::{process::Service, wait_until};
use tonic::{
    Status, Streaming,
    transport::{Certificate, ClientTlsConfig},
};

use crate::{
    harness::*,
    tls::{Authority, client},
};

/// A service with a certificate of `authority`, which accepts clients of both CAs.
async fn serve(authority: &Authority, other: &Authority) -> (TestDatabase, Service) {
    authority.issue("server", ExtendedKeyUsagePurpose::ServerAuth);
    let both = [authority, other].map(|it| fs::read_to_string(it.path("ca.pem")).expect("read"));
    fs::write(authority.path("clients.pem"), both.concat()).expect("write");
    let database = TestDatabase::new(Backend::Sqlite).await;
    let flags = ["--tls-client-ca", &authority.text("clients.pem")];
    let service = authority.serve(&database, &flags);
    (database, service)
}

/// TLS configuration of a client of `of` for the server certificate of `server`.
fn known(server: &Authority, of: &Authority, name: &str) -> ClientTlsConfig {
    let authority = fs::read(server.path("ca.pem")).expect("read");
    let config = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(authority));
    config.identity(of.identity(name))
}

/// Subscribes from the end; returns when it has caught up.
async fn follow(client: &mut Client) -> Streaming<SubscribeResponse> {
    let request = SubscribeRequest { cursor: "end".to_owned(), ..Default::default() };
    let mut feed = client.subscribe(request).await.expect("subscribe").into_inner();
    let first = feed.message().await.expect("a frame").expect("a frame");
    assert!(matches!(first.frame, Some(Frame::CaughtUp(_))));
    feed
}

/// The id of the next event.
async fn next_id(feed: &mut Streaming<SubscribeResponse>) -> String {
    loop {
        if let Some(Frame::Events(batch)) =
            feed.message().await.expect("frames").expect("no end").frame
        {
            return batch.events[0].event_id.clone();
        }
    }
}

/// Reads until the connection is closed.
async fn end(mut feed: Streaming<SubscribeResponse>) -> Option<Status> {
    loop {
        match feed.message().await {
            Ok(Some(_)) => (),
            Ok(None) => return None,
            Err(status) => return Some(status),
        }
    }
}

/// Subscribes over HTTP/1 and writes to a file.
fn follow_http1(server: &Authority, of: &Authority, service: &Service, into: &str) -> Child {
    let output = fs::File::create(server.path(into)).expect("a file");
    Command::new("curl")
        .args(["-sN", "--http1.1", "--cacert", &server.text("ca.pem")])
        .args(["--cert", &of.text("producer.pem"), "--key", &of.text("producer.key")])
        .arg(format!("https://localhost:{}/events/stream?cursor=beginning", service.address.port()))
        .stdout(Stdio::from(output))
        .spawn()
        .expect("curl")
}

#[tokio::test(flavor = "multi_thread")]
async fn replaced_client_ca_closes_connections() {
    let (kept, removed) = (Authority::new(), Authority::new());
    for authority in [&kept, &removed] {
        authority.issue("producer", ExtendedKeyUsagePurpose::ClientAuth);
    }
    let (_database, service) = serve(&kept, &removed).await;
    let with = |of| known(&kept, of, "producer");
    let mut good = client(&service, with(&kept)).await.expect("known");
    let mut bad = client(&service, with(&removed)).await.expect("known");
    publish(&mut bad, vec![event("t", "1")]).await;
    let (mut goes_on, ends) = (follow(&mut good).await, follow(&mut bad).await);
    let text = |name| fs::read_to_string(kept.path(name)).expect("text");
    let mut over_http1 = ["good", "bad"].map(|name| {
        let of = if name == "good" { &kept } else { &removed };
        let following = follow_http1(&kept, of, &service, name);
        wait_until(|| text(name).contains("data:"));
        following
    });

    fs::copy(kept.path("ca.pem"), kept.path("next")).expect("copy");
    fs::rename(kept.path("next"), kept.path("clients.pem")).expect("rename");
    service.signal("HUP");
    end(ends).await.expect("cut, not ended");
    assert!(!over_http1[1].wait().expect("curl").success(), "cut");
    try_publish(&mut bad, vec![event("t", "by bad")]).await.expect_err("not let in again");
    // Clients of the remaining CA continue on their open connections.
    publish(&mut good, vec![event("t", "2")]).await;
    assert_eq!(next_id(&mut goes_on).await, "2");
    wait_until(|| text("good").contains(r#""event_id":"2""#));
    assert!(over_http1[0].try_wait().expect("curl").is_none());
    assert!(!text("bad").contains(r#""event_id":"2""#));
    over_http1[0].kill().expect("kill");
    over_http1[0].wait().expect("killed");
    assert!(kept.log().contains("client certificate is no longer valid"), "{}", kept.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn expired_client_certificate_closes_connection() {
    let (authority, other) = (Authority::new(), Authority::new());
    authority.issue("producer", ExtendedKeyUsagePurpose::ClientAuth);
    let (_database, service) = serve(&authority, &other).await;
    let mut lasting =
        client(&service, known(&authority, &authority, "producer")).await.expect("known");
    let mut goes_on = follow(&mut lasting).await;
    authority.issue_with(&["short.test"], "short", ExtendedKeyUsagePurpose::ClientAuth, |params| {
        params.not_after = (SystemTime::now() + Duration::from_secs(15)).into();
    });
    let mut short = client(&service, known(&authority, &authority, "short")).await.expect("valid");
    let ends = follow(&mut short).await;
    end(ends).await.expect("cut, not ended");
    publish(&mut lasting, vec![event("t", "1")]).await;
    assert_eq!(next_id(&mut goes_on).await, "1");
}
