//! Commands with tokens, and listen addresses that are refused.

use std::{
    fs,
    process::{Command, Output},
};

use event_aggregator::proto::v1::GetStatsRequest;
use serde_json::Value;
use testkit::process::Service;

use super::{entry, everybody, grant, with_header};
use crate::harness::*;

async fn run(mut command: Command) -> Output {
    let run = move || command.output().expect("run");
    tokio::task::spawn_blocking(run).await.expect("run")
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// A service process with an access file.
fn guarded(database: &TestDatabase, text: &str) -> Service {
    let file = database.path("access.toml");
    fs::write(&file, text).expect("write");
    Service::run(
        program()
            .args(["serve", "--listen", "127.0.0.1:0", "--database-url", &database.url_text()])
            .arg("--access")
            .arg(file),
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn generated_token_authenticates() {
    let made = run({
        let mut command = program();
        command.args(["token", "some \"one\""]);
        command
    })
    .await;
    let made: Value = serde_json::from_slice(&made.stdout).expect("JSON");
    let (token, entry) =
        (made["token"].as_str().expect("text"), made["entry"].as_str().expect("text"));
    assert!(token.starts_with("ea_") && token.len() == 3 + 43, "{token}");
    assert!(!entry.contains(token));
    let database = TestDatabase::new(Backend::Sqlite).await;
    let service = guarded(&database, &format!("{entry}\n{}", everybody()));
    let address = service.address.to_string();

    let file = database.path("token");
    fs::write(&file, format!("{token}\n")).expect("write");
    let stats = |topic: Option<&str>| {
        let mut command = program();
        command.args(["get", topic.unwrap_or("orders.x"), "1", "--addr", &address]);
        command
    };
    let mut by_flag = stats(None);
    by_flag.args(["--token", token]);
    let mut by_variable = stats(None);
    by_variable.env("EVENT_AGGREGATOR_TOKEN", token);
    let mut by_file = stats(None);
    by_file.arg("--token-file").arg(&file).args(["--token", "wrong"]);
    for command in [by_flag, by_variable, by_file] {
        let output = run(command).await;
        // The event does not exist, but the caller was authenticated.
        assert!(said(&output).contains("No event has this key"), "{}", said(&output));
    }
    let unknown = run(stats(None)).await;
    assert_eq!(unknown.status.code(), Some(64 + 16));
    assert!(said(&unknown).contains("--token-file"), "{}", said(&unknown));
    let mut denied = stats(Some("other"));
    denied.args(["--token", token]);
    let denied = run(denied).await;
    assert_eq!(denied.status.code(), Some(64 + 7));
    assert!(said(&denied).contains("no grant to read topic other"), "{}", said(&denied));

    for (wrong, fault) in
        [("two words", "expected a single word"), ("ümlaut\u{1}", "expected a single word")]
    {
        let mut command = stats(None);
        command.args(["--token", wrong]);
        let output = run(command).await;
        assert_eq!(output.status.code(), Some(1));
        assert!(
            said(&output).contains(fault) && !said(&output).contains(wrong),
            "{}",
            said(&output)
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn token_is_not_sent_over_remote_plaintext() {
    let database = TestDatabase::new(Backend::Sqlite).await;
    let service = guarded(&database, &everybody());
    let stats = |address: &str, more: &[&str]| {
        let mut command = program();
        command.args(["stats", "--token", "token-of-root", "--addr", address]).args(more);
        run(command)
    };
    // An address that leads to this machine, but is not loopback.
    let beyond = format!("0.0.0.0:{}", service.address.port());
    for address in [&*beyond, &format!("http://{beyond}"), "events.example:1", "[2001:db8::1]:1"] {
        let refused = stats(address, &[]).await;
        assert_eq!(refused.status.code(), Some(1), "{address}");
        let said = said(&refused);
        assert!(said.contains("https://") && said.contains("--insecure"), "{address}: {said}");
        assert!(!said.contains("token-of-root"), "{said}");
    }
    for (address, more) in [
        (beyond, &["--insecure"][..]),
        (service.address.to_string(), &[]),
        (format!("http://localhost:{}", service.address.port()), &[]),
    ] {
        let output = stats(&address, more).await;
        assert_eq!(output.status.code(), Some(0), "{address}: {}", said(&output));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn commands_authenticate_with_token() {
    let database = TestDatabase::new(Backend::Sqlite).await;
    let service = guarded(&database, &everybody());
    let command = |name: &str, arguments: &[&str]| {
        let mut command = program();
        command.args(arguments).args(["--addr", &service.address.to_string()]);
        command.env("EVENT_AGGREGATOR_TOKEN", format!("token-of-{name}"));
        command
    };
    let simulate = ["publish", "--simulate", "50", "--topics", "1"];
    let bench = ["bench", "--events", "2000", "--clients", "2"];
    for arguments in
        [&simulate[..], &bench, &["tail", "--from-start", "-n", "1"], &["stats"], &["list"]]
    {
        let output = run(command("root", arguments)).await;
        assert_eq!(output.status.code(), Some(0), "{arguments:?}: {}", said(&output));
    }
    // A grant on one topic is enough to find the start position.
    let event = r#"{"topic":"orders","event_id":"1","source":"test"}"#;
    fs::write(database.path("event"), event).expect("write");
    let file = database.path("event").display().to_string();
    let since = ["tail", "--topic", "orders", "--since", "1h", "-n", "1"];
    for arguments in [&["publish", "--file", &file][..], &since] {
        let output = run(command("shop", arguments)).await;
        assert_eq!(output.status.code(), Some(0), "{arguments:?}: {}", said(&output));
    }
    for arguments in [&["tail", "--from-start", "-n", "1"][..], &["stats"], &["list"]] {
        let output = run(command("shop", arguments)).await;
        assert_eq!(output.status.code(), Some(64 + 7), "{arguments:?}: {}", said(&output));
    }
    // The health check needs no token.
    let health = run(command("stranger", &["health"])).await;
    assert_eq!(health.status.code(), Some(0), "{}", said(&health));
}

#[tokio::test(flavor = "multi_thread")]
async fn non_loopback_address_requires_tls_and_access_or_insecure() {
    let database = TestDatabase::new(Backend::Sqlite).await;
    let file = database.path("access.toml");
    fs::write(&file, entry("shop", &grant("read", "*"))).expect("write");
    let serve = |listen: &str| {
        let mut command = program();
        command.args(["serve", "--listen", listen, "--database-url", &database.url_text()]);
        command
    };
    let mut with_tokens = serve("0.0.0.0:0");
    with_tokens.arg("--access").arg(&file);
    for command in [serve("0.0.0.0:0"), serve("[::]:0"), with_tokens] {
        let output = run(command).await;
        assert_eq!(output.status.code(), Some(1));
        let said = said(&output);
        assert_eq!(said.lines().count(), 1, "{said}");
        for way in ["127.0.0.1", "--tls-cert", "--access", "--insecure"] {
            assert!(said.contains(way), "{way}: {said}");
        }
    }
    let by_flag = Service::run(serve("0.0.0.0:0").arg("--insecure"));
    drop(by_flag);
    for yes in ["true", "1"] {
        let mut command = serve("0.0.0.0:0");
        command.env("EVENT_AGGREGATOR_INSECURE", yes);
        drop(Service::run(command.env("EVENT_AGGREGATOR_ALLOW_DATA_LOSS", yes)));
    }
    let output = run({
        let mut command = serve("0.0.0.0:0");
        command.env("EVENT_AGGREGATOR_INSECURE", "false");
        command
    })
    .await;
    assert_eq!(output.status.code(), Some(1));
}

#[tokio::test(flavor = "multi_thread")]
async fn sighup_reloads_access_file() {
    let database = TestDatabase::new(Backend::Sqlite).await;
    let mut service = guarded(&database, &everybody());
    let mut root = with_header(service.address, Some("Bearer token-of-root".to_owned())).await;
    root.get_stats(GetStatsRequest::default()).await.expect("granted");
    fs::write(database.path("access.toml"), entry("shop", "")).expect("write");
    service.signal("HUP");
    testkit::wait_until_async(async || root.get_stats(GetStatsRequest::default()).await.is_err())
        .await;
    service.signal("TERM");
    assert_eq!(service.wait(), Some(0));
}
