//! Tokens, database passwords and payloads must never be logged or printed.

use std::{
    fs::{self, File},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, Command},
};

use event_aggregator::proto::v1::{
    GetStatsRequest, ListEventsRequest, PublishRequest, PublishStreamRequest, SubscribeRequest,
};
use testkit::{postgres::Server, wait_until};
use tokio_stream::{StreamExt, iter};

use super::{everybody, with_header};
use crate::harness::*;

const PASSWORD: &str = "canary-password";
const WRONG: &str = "canary-wrong-token";
const PAYLOAD: &str = "canary-payload";
/// The secrets above, the prefix of tokens in `everybody`, and the key of their digests.
const CANARIES: [&str; 5] = [PASSWORD, WRONG, PAYLOAD, "token-of-", "token_sha256"];

#[track_caller]
fn assert_silent(text: &str) {
    for canary in CANARIES {
        let told: Vec<&str> = text.lines().filter(|line| line.contains(canary)).take(3).collect();
        assert!(told.is_empty(), "{canary} was printed: {told:#?}");
    }
}

/// A service process with the most verbose log.
struct Loud {
    service: Child,
    address: SocketAddr,
    out: PathBuf,
    log: PathBuf,
}

impl Loud {
    fn start(database: &TestDatabase, url: &str, more: &[&str]) -> Self {
        let (out, log) = (database.path("out"), database.path("log"));
        let service = program()
            .args(["serve", "--listen", "127.0.0.1:0"])
            .args(more)
            .env("DATABASE_URL", url)
            .env("RUST_LOG", "trace")
            .stdout(File::create(&out).expect("a file"))
            .stderr(File::create(&log).expect("a file"))
            .spawn()
            .expect("spawn");
        wait_until(|| read(&out).contains("is listening on "));
        let banner = read(&out);
        let address = banner.lines().next().and_then(|line| line.rsplit(' ').next());
        let address = address.expect("an address").parse().expect("an address");
        Self { service, address, out, log }
    }

    fn log(&self) -> String {
        read(&self.log)
    }

    /// Stops the service and checks its complete output.
    fn was_silent(mut self) {
        let kill = format!("kill -TERM {}", self.service.id());
        assert!(Command::new("sh").args(["-c", &kill]).status().expect("kill").success());
        assert!(self.service.wait().expect("an end").success());
        assert!(self.log().contains("TRACE"), "it said much");
        assert_silent(&self.log());
        assert_silent(&read(&self.out));
    }
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).expect("text")
}

#[tokio::test(flavor = "multi_thread")]
async fn values_in_database_errors_are_redacted() {
    let postgres = Server::start("-c fsync=off");
    let database = TestDatabase::on(&postgres).await;
    let loud = Loud::start(&database, &database.url_text(), &[]);
    // One error quotes the row in its details, the other the value in its message.
    for sql in [
        "ALTER TABLE processed_events ADD CONSTRAINT no_canary CHECK (payload->>'x' IS NULL)",
        "CREATE INDEX ON processed_events (((payload->>'n')::bigint))",
    ] {
        database.execute(sql).await;
    }
    let mut client = connect_to(loud.address).await;
    for field in ["x", "n"] {
        let payload = format!("{{\"{field}\":\"{PAYLOAD}\"}}");
        let events = vec![event_with("orders", "1", &payload)];
        let request = PublishRequest { events, allow_partial: true };
        let response = client.publish(request).await.expect("an answer").into_inner();
        assert_eq!(response.rejected, 1, "{response:?}");
    }
    for told in ["SQLSTATE 23514, table processed_events, constraint no_canary", "SQLSTATE 22P02"] {
        assert!(loud.log().contains(told), "{told}: {}", loud.log());
    }
    drop(client);
    loud.was_silent();
}

#[tokio::test(flavor = "multi_thread")]
async fn verbose_logs_contain_no_secrets() {
    let postgres = Server::start("-c fsync=off");
    let database = TestDatabase::on(&postgres).await;
    let url = database.url_text().replacen("postgres@", &format!("postgres:{PASSWORD}@"), 1);
    assert!(url.contains(PASSWORD));
    let access = database.path("access.toml");
    fs::write(&access, everybody()).expect("write");
    let loud = Loud::start(&database, &url, &["--access", access.to_str().expect("text")]);
    let address = loud.address;

    let good = event_with("orders", "1", &format!("{{\"x\":\"{PAYLOAD}\"}}"));
    let conflict = event_with("orders", "1", &format!("{{\"y\":\"{PAYLOAD}\"}}"));
    let broken = event_with("orders", "2", &format!("{{\"x\":\"{PAYLOAD}"));
    for header in ["Bearer token-of-root".to_owned(), format!("Bearer {WRONG}"), WRONG.to_owned()] {
        let mut caller = with_header(address, Some(header.clone())).await;
        for event in [&good, &conflict, &broken] {
            let request = PublishRequest { events: vec![event.clone()], allow_partial: false };
            let _ = caller.publish(request).await;
            let request =
                PublishStreamRequest { events: vec![event.clone()], ..Default::default() };
            if let Ok(answers) = caller.publish_stream(iter([request])).await {
                let _ = answers.into_inner().next().await;
            }
        }
        let _ = caller.list_events(ListEventsRequest::default()).await;
        let _ = caller.get_stats(GetStatsRequest::default()).await;
        if let Ok(frames) = caller.subscribe(SubscribeRequest::default()).await {
            let _ = frames.into_inner().next().await;
        }
        let bodies = [format!(r#"{{"x":"{PAYLOAD}"}}"#), format!("{{ {PAYLOAD}")];
        let post = |body: &str| {
            format!(
                "POST /publish HTTP/1.1\r\nContent-Type: application/json\r\nContent-Length: {}\r\n",
                body.len()
            )
        };
        let gets = ["/events", "/stats", "/metrics", "/events/orders/1"];
        let calls = gets.map(|path| (format!("GET {path} HTTP/1.1\r\n"), String::new()));
        for (head, body) in bodies.map(|body| (post(&body), body)).into_iter().chain(calls) {
            let head =
                format!("{head}Host: test\r\nConnection: close\r\nAuthorization: {header}\r\n\r\n");
            let answer = call(address, head + &body).await;
            if answer.body.starts_with('#') {
                assert_silent(&answer.body);
            }
        }
    }
    // Nor does an invalid access file.
    fs::write(&access, format!("{WRONG}\n")).expect("write");
    wait_until(|| loud.log().contains("failed to reload access file"));
    loud.was_silent();
}

#[test]
fn help_and_errors_contain_no_secrets() {
    let run = |arguments: &[&str]| {
        let output = program()
            .args(arguments)
            .env("EVENT_AGGREGATOR_TOKEN", WRONG)
            .env("DATABASE_URL", format!("postgres://user:{PASSWORD}@127.0.0.1:1/none"))
            .output()
            .expect("run");
        let text = [output.stdout, output.stderr].concat();
        String::from_utf8(text).expect("text")
    };
    let help = run(&["--help"]);
    let commands = help.split("Commands:").nth(1).expect("commands").lines().skip(1);
    let commands: Vec<&str> = commands
        .take_while(|line| !line.is_empty())
        .filter_map(|line| line.strip_prefix("  ")?.split(' ').next())
        .filter(|name| !name.is_empty())
        .collect();
    assert!(commands.contains(&"serve") && commands.contains(&"stats"), "{commands:?}");
    for command in commands {
        for help in ["--help", "-h"] {
            let text = run(&[command, help]);
            assert!(text.contains("Usage:"), "{text}");
            assert_silent(&text.replace("token_sha256", ""));
        }
    }
    for arguments in [
        &["serve", "--listen", "127.0.0.1:0", "--unknown"][..],
        &["verify"],
        &["stats", "--addr", "127.0.0.1:1"],
        &["stats", "--unknown"],
        &["stats", "--token", "canary-wrong-token two", "--addr", "127.0.0.1:1"],
    ] {
        assert_silent(&run(arguments));
    }
}
