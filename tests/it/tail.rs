//! `tail` as a process: copying, exporting across kills, reconnecting after a restart.

use std::{
    fs::{self, File, OpenOptions},
    io::{BufRead, BufReader, Read},
    path::Path,
    process::{Child, Command, Stdio},
};

use serde_json::Value;

use crate::harness::*;

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
async fn tail_and_publish_copy_a_store() {
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

/// Starts an export that appends to a file, like `>>`.
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
async fn killed_export_has_each_event_once() {
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
            // Killed after it has printed some more events.
            let enough = size() + random.u64(1..200_000);
            let full = EVENTS as u64 * 100;
            while size() < enough && size() < full {}
            exporting.kill().expect("kill");
            exporting.wait().expect("killed");
        }
        publishing.await.expect("published");
        let mut exporting = export(&address, &cursor, &output);
        // Complete lines only: a partial one will be truncated or completed.
        let lines = || {
            let mut text = String::new();
            File::open(&output)
                .expect("output")
                .read_to_string(&mut text)
                .map_or(0, |_| text.lines().count())
        };
        testkit::wait_until(|| lines() >= EVENTS);
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
async fn tail_reconnects_after_a_restart() {
    let database = TestDatabase::new(Backend::Sqlite).await;
    let mut service = serve(&database.url_text());
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
        service = serve_at(&address, &database.url_text());
        publish_some(&mut connect_to(service.address).await, from, from + 10).await;
        seen.extend(lines.by_ref().take(10).map(|line| line.expect("line")));
    }
    assert!(tailing.wait().expect("tail").success());
    seen.sort_unstable();
    seen.dedup();
    assert_eq!(seen.len(), 30);
}

#[tokio::test(flavor = "multi_thread")]
async fn invalid_tail_arguments_are_explained() {
    let server = TestServer::start(Backend::Sqlite).await;
    let address = server.address.to_string();
    let cursor = server.database.path("cursor");
    for (arguments, code, expected) in [
        (vec!["--cursor", "garbage"], 64 + 3, "cursor"),
        (vec!["--topic", " "], 64 + 3, "whitespace"),
        (vec!["--since", "yesterday"], 2, "10m"),
        (vec!["--cursor-file", cursor.to_str().expect("UTF-8")], 1, "not a cursor file"),
    ] {
        fs::write(&cursor, "what?").expect("write");
        let output = tail(&address, &arguments).output().expect("tail");
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{stderr}");
        assert!(stderr.contains(expected), "{stderr}");
    }
}

/// Exports to a file under strace, which kills it at the third matching call on that file. Returns
/// whether it was killed.
fn killed_at(call: &str, address: &str, cursor: &Path, output: &Path) -> bool {
    let file = OpenOptions::new().create(true).append(true).open(output).expect("output");
    let status = Command::new("strace")
        .args(["-f", "-qq", "-o", "/dev/null", "-P"])
        .arg(output)
        .arg("-e")
        .arg(format!("trace={call}"))
        .arg("-e")
        .arg(format!("inject={call}:signal=KILL:when=3"))
        .arg(PROGRAM)
        .args(["tail", "--addr", address, "--from-start", "-o", "ndjson", "-n", "3000"])
        .arg("--cursor-file")
        .arg(cursor)
        .stdout(Stdio::from(file))
        .stderr(Stdio::null())
        .status();
    !status.expect("strace is installed").success()
}

#[tokio::test(flavor = "multi_thread")]
async fn export_killed_in_its_first_batch_has_each_event_once() {
    const EVENTS: usize = 3_000;
    let server = TestServer::start(Backend::Sqlite).await;
    let address = server.address.to_string();
    publish_some(&mut server.client().await, 0, EVENTS).await;
    let exported = |cursor: &Path, output: &Path, limit: usize| {
        let file = OpenOptions::new().create(true).append(true).open(output).expect("output");
        let limit = limit.to_string();
        let mut command = tail(&address, &["--from-start", "-n", &limit, "-o", "ndjson"]);
        command.arg("--cursor-file").arg(cursor).stdout(Stdio::from(file)).stderr(Stdio::null());
        command
    };
    let finish = |cursor: &Path, output: &Path, what: &str| {
        let rest = EVENTS - kept_lines(cursor, output);
        if rest > 0 {
            assert!(exported(cursor, output, rest).status().expect("tail").success());
        }
        let mut ids = ids_in(output);
        assert_eq!(ids.len(), EVENTS, "{what}");
        ids.sort_unstable();
        ids.dedup();
        assert_eq!(ids.len(), EVENTS, "{what}");
    };
    // Killed while it writes the first lines.
    let (cursor, output) = (server.database.path("cursor"), server.database.path("output"));
    assert!(killed_at("write", &address, &cursor, &output), "killed");
    let written = fs::metadata(&output).expect("output").len();
    assert!(written > 0 && cursor.exists(), "the first place is kept before the first line");
    // Killed at a random early moment.
    let mut random = fastrand::Rng::with_seed(11);
    for round in 0..20 {
        let (cursor, output) = (
            server.database.path(&format!("cursor{round}")),
            server.database.path(&format!("output{round}")),
        );
        fs::write(&output, "").expect("write");
        let mut exporting = exported(&cursor, &output, EVENTS).spawn().expect("tail");
        let enough = random.u64(1..40_000);
        while fs::metadata(&output).expect("output").len() < enough
            && exporting.try_wait().expect("tail").is_none()
        {}
        let _ = exporting.kill();
        exporting.wait().expect("killed");
        finish(&cursor, &output, "at random");
    }
    finish(&cursor, &output, "at the third write");
}

/// Number of output lines covered by the cursor file.
fn kept_lines(cursor: &Path, output: &Path) -> usize {
    let place: Value = serde_json::from_slice(&fs::read(cursor).expect("place")).expect("JSON");
    let bytes = place["output_bytes"].as_u64().expect("bytes") as usize;
    let text = fs::read(output).expect("output");
    text[..bytes].iter().filter(|&&byte| byte == b'\n').count()
}

#[tokio::test(flavor = "multi_thread")]
async fn export_starts_at_the_saved_end() {
    let server = TestServer::start(Backend::Sqlite).await;
    let address = server.address.to_string();
    let (cursor, output) = (server.database.path("cursor"), server.database.path("output"));
    let mut client = server.client().await;
    publish_some(&mut client, 0, 10).await;
    fs::write(&output, "what was there\n").expect("write");
    let exporting = |limit: &str| {
        let file = OpenOptions::new().append(true).open(&output).expect("output");
        let mut command = tail(&address, &["-o", "ndjson", "-n", limit, "--cursor-file"]);
        command.arg(&cursor).stdout(Stdio::from(file)).stderr(Stdio::null());
        command.spawn().expect("tail")
    };
    let mut first = exporting("1");
    testkit::wait_until(|| cursor.exists());
    first.kill().expect("kill");
    first.wait().expect("killed");
    // Stored while it was not running, with a torn last line.
    publish_some(&mut client, 10, 13).await;
    let mut torn = OpenOptions::new().append(true).open(&output).expect("output");
    std::io::Write::write_all(&mut torn, b"{\"topic\":").expect("write");
    assert!(exporting("3").wait().expect("tail").success());
    let text = fs::read_to_string(&output).expect("text");
    let (before, events) = text.split_once('\n').expect("lines");
    assert_eq!(before, "what was there");
    assert_eq!(events.lines().count(), 3, "{events}");
    assert!(["000010", "000011", "000012"].iter().all(|id| events.contains(id)), "{events}");
}

#[tokio::test(flavor = "multi_thread")]
async fn cursor_file_rejects_a_pipe_and_tail_ends_with_its_reader() {
    let server = TestServer::start(Backend::Sqlite).await;
    let address = server.address.to_string();
    publish_some(&mut server.client().await, 0, 3).await;
    let cursor = server.database.path("cursor");
    let mut refused = tail(&address, &["--from-start", "--cursor-file"]);
    let refused = refused.arg(&cursor).output().expect("tail");
    let said = String::from_utf8_lossy(&refused.stderr);
    assert_eq!(refused.status.code(), Some(1), "{said}");
    assert!(said.contains("a regular file as output"), "{said}");
    assert!(refused.stdout.is_empty() && !cursor.exists());

    let mut tailing = tail(&address, &["--from-start"]);
    let mut tailing = tailing.stdout(Stdio::piped()).spawn().expect("tail");
    let mut read = BufReader::new(tailing.stdout.take().expect("piped"));
    read.read_line(&mut String::new()).expect("line");
    // Nothing more is stored, so nothing more is written.
    drop(read);
    assert!(tailing.wait().expect("tail").success());
}
