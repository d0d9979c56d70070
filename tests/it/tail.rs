//! `tail` as a process: copying, exporting through kills, riding out a restart.

use std::{
    fs::{self, File, OpenOptions},
    io::{BufRead, BufReader, Read},
    path::Path,
    process::{Child, Command, Stdio},
};

use serde_json::Value;

use crate::{
    harness::*,
    process::{Service, program},
};

fn tail(address: &str, arguments: &[&str]) -> Command {
    let mut command = program();
    command.args(["tail", "--addr", address]).args(arguments).stdin(Stdio::null());
    command
}

async fn publish_some(client: &mut Client, from: usize, to: usize) {
    let events: Vec<_> =
        (from..to).map(|n| event(&format!("t{}", n % 5), &format!("{n:06}"))).collect();
    for part in events.chunks(500) {
        publish(client, part.to_vec()).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_command_copies_a_store_into_another() {
    let (one, other) =
        (TestServer::start(Backend::Sqlite).await, TestServer::start(Backend::Postgres).await);
    let mut client = one.client().await;
    publish_some(&mut client, 0, 1_500).await;
    let exact = r#"{ "n" : 9007199254740993 }"#;
    publish(&mut client, vec![event_with("exact", "1", exact)]).await;

    let mut tailing =
        tail(&one.address.to_string(), &["--from-start", "-n", "1501", "-o", "ndjson"]);
    let mut tailing = tailing.stdout(Stdio::piped()).spawn().expect("tail");
    let copied = program()
        .args(["publish", "--file", "-", "--addr", &other.address.to_string()])
        .stdin(tailing.stdout.take().expect("piped"))
        .stdout(Stdio::null())
        .status();
    assert!(copied.expect("publish").success());
    assert!(tailing.wait().expect("tail").success());
    assert_eq!(other.stored().await, 1_501);
    let key = event_aggregator::proto::v1::EventKey { topic: "exact".into(), event_id: "1".into() };
    let request =
        event_aggregator::proto::v1::BatchGetEventsRequest { keys: vec![key], payload_format: 2 };
    let found = other.client().await.batch_get_events(request).await.expect("found").into_inner();
    assert_eq!(payload_text(&found.events[0]), exact);
}

/// Starts an export that appends to a file, as `>>` does.
fn export(address: &str, cursor: &Path, output: &Path) -> Child {
    let output = OpenOptions::new().create(true).append(true).open(output).expect("output");
    tail(address, &["--from-start", "-o", "ndjson", "--cursor-file"])
        .arg(cursor)
        .stdout(Stdio::from(output))
        .stderr(Stdio::null())
        .spawn()
        .expect("tail")
}

fn ids_in(output: &Path) -> Vec<String> {
    BufReader::new(File::open(output).expect("output"))
        .lines()
        .map(|line| {
            let line: Value = serde_json::from_str(&line.expect("line")).expect("a whole line");
            line["event_id"].as_str().expect("id").to_owned()
        })
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_export_that_is_killed_has_each_event_once() {
    const EVENTS: usize = 10_000;
    for backend in [Backend::Sqlite, Backend::Postgres] {
        let server = TestServer::start(backend).await;
        let address = server.address.to_string();
        let (cursor, output) = (server.database.path("cursor"), server.database.path("output"));
        let mut client = server.client().await;
        let publishing = tokio::spawn(async move { publish_some(&mut client, 0, EVENTS).await });
        let mut random = fastrand::Rng::with_seed(7);
        let size = || fs::metadata(&output).map_or(0, |output| output.len());
        for _ in 0..15 {
            let mut exporting = export(&address, &cursor, &output);
            // Killed once it has printed some more, wherever that is.
            let enough = size() + random.u64(1..200_000);
            let full = EVENTS as u64 * 100;
            while size() < enough && size() < full {}
            exporting.kill().expect("kill");
            exporting.wait().expect("killed");
        }
        publishing.await.expect("published");
        let mut exporting = export(&address, &cursor, &output);
        // Whole lines only: what is half written will be cut off or finished.
        let lines = || {
            let mut text = String::new();
            File::open(&output)
                .expect("output")
                .read_to_string(&mut text)
                .map_or(0, |_| text.lines().count())
        };
        crate::process::wait_until(|| lines() >= EVENTS);
        exporting.kill().expect("kill");
        exporting.wait().expect("killed");

        let mut ids = ids_in(&output);
        assert_eq!(ids.len(), EVENTS);
        ids.sort_unstable();
        ids.dedup();
        assert_eq!(ids.len(), EVENTS, "each once");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_of_the_service_is_ridden_out() {
    let database = TestDatabase::new(Backend::Sqlite).await;
    let mut service = Service::start(&database.url_text());
    let address = service.address.to_string();
    publish_some(&mut connect_to(service.address).await, 0, 10).await;
    let mut tailing = tail(&address, &["--from-start", "-n", "30", "-o", "ndjson"])
        .stdout(Stdio::piped())
        .spawn()
        .expect("tail");
    let mut lines = BufReader::new(tailing.stdout.take().expect("piped")).lines();
    let mut seen: Vec<String> = lines.by_ref().take(10).map(|line| line.expect("line")).collect();
    for from in [10, 20] {
        service.signal("KILL");
        service.wait();
        service = Service::start_at(&address, &database.url_text());
        publish_some(&mut connect_to(service.address).await, from, from + 10).await;
        seen.extend(lines.by_ref().take(10).map(|line| line.expect("line")));
    }
    assert!(tailing.wait().expect("tail").success());
    seen.sort_unstable();
    seen.dedup();
    assert_eq!(seen.len(), 30);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_tailed_says_why() {
    let server = TestServer::start(Backend::Sqlite).await;
    let address = server.address.to_string();
    let cursor = server.database.path("cursor");
    for (arguments, code, expected) in [
        (vec!["--cursor", "garbage"], 64 + 3, "cursor"),
        (vec!["--topic", " "], 64 + 3, "white space"),
        (vec!["--since", "yesterday"], 2, "10m"),
        (vec!["--cursor-file", cursor.to_str().expect("UTF-8")], 1, "no cursor file"),
    ] {
        fs::write(&cursor, "what?").expect("write");
        let output = tail(&address, &arguments).output().expect("tail");
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{stderr}");
        assert!(stderr.contains(expected), "{stderr}");
    }
}
