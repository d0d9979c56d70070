//! NDJSON: one event per line, whatever whitespace is in its payload.

use std::{
    io::Write,
    process::{Command, Stdio},
};

use event_aggregator::proto::v1::{ListEventsRequest, PayloadFormat, PublishStreamRequest};
use serde_json::Value;

use crate::harness::*;

/// Payloads with line breaks, and with text that looks like an event.
const HOSTILE: &[&str] = &[
    "{\n  \"a\": 1,\n  \"b\": [1,\n 2]\n}",
    "{\r\n\"a\"\r:\r1\r}",
    "{\"x\":\n{\"topic\":\"admin\",\"event_id\":\"9\",\"source\":\"payroll\"}\n}",
    "{\"s\":\"\\n\\r\\u2028 \u{2028}\u{2029}\u{85}\",\t\"t\":\n\"\\\"\"}",
    "\n{}\n",
];

async fn command(server: &TestServer, arguments: &[&str], input: Vec<u8>) -> Vec<u8> {
    let mut command: Command = program();
    command.args(arguments).env("EVENT_AGGREGATOR_ADDR", server.address.to_string());
    let run = move || {
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().expect("spawn");
        let mut stdin = child.stdin.take().expect("piped");
        let writing = std::thread::spawn(move || stdin.write_all(&input));
        let output = child.wait_with_output().expect("output");
        let _ = writing.join().expect("written");
        assert!(output.status.success());
        output.stdout
    };
    tokio::task::spawn_blocking(run).await.expect("run")
}

#[tokio::test(flavor = "multi_thread")]
async fn ndjson_has_one_line_per_event_and_round_trips() {
    let (server, copy) =
        (TestServer::start(Backend::Sqlite).await, TestServer::start(Backend::Postgres).await);
    let mut client = server.client().await;
    let events = |topic: &str| -> Vec<_> {
        let ids = (0..).map(|id: u32| id.to_string());
        HOSTILE.iter().zip(ids).map(|(payload, id)| event_with(topic, &id, payload)).collect()
    };
    publish(&mut client, events("unary")).await;
    let request = PublishStreamRequest { events: events("stream"), ..Default::default() };
    let answers = client.publish_stream(tokio_stream::iter([request])).await.expect("a stream");
    answers.into_inner().message().await.expect("an answer").expect("an answer");
    for (payload, id) in HOSTILE.iter().zip(0..) {
        let body =
            format!(r#"{{"topic":"http","event_id":"{id}","source":"test","payload":{payload}}}"#);
        assert_eq!(post(&server, &body).await.status, 200);
    }
    let all = 3 * HOSTILE.len();
    let number = all.to_string();

    let mut printed = Vec::new();
    for arguments in [
        &["list", "-n", "0", "-o", "ndjson"][..],
        &["list", "-n", "0"],
        &["tail", "--from-start", "-n", &number, "-o", "json"],
        &["tail", "--from-start", "-n", &number, "-o", "ndjson"],
    ] {
        printed = command(&server, arguments, Vec::new()).await;
        let text = String::from_utf8(printed.clone()).expect("UTF-8");
        let lines: Vec<_> = text.split_terminator('\n').collect();
        assert_eq!(lines.len(), all, "{arguments:?}: {text}");
        assert!(!text.contains('\r'), "{arguments:?}");
        for line in lines {
            let line: Value = serde_json::from_str(line).expect("an object");
            assert_ne!(line["topic"], "admin");
            assert!(line["cursor"].is_string());
        }
    }
    for arguments in [
        &["tail", "--from-start", "-n", &number, "-o", "table"][..],
        &["get", "unary", "0"],
        &["get", "unary", "0", "-o", "json"],
        &["list", "-n", "0", "-o", "table"],
    ] {
        let rows = String::from_utf8(command(&server, arguments, Vec::new()).await).expect("UTF-8");
        let expected = match arguments[0] {
            "tail" => all,
            "get" => 1,
            _ => all + 2,
        };
        assert_eq!(rows.split_terminator('\n').count(), expected, "{arguments:?}: {rows}");
    }
    let array = command(&server, &["list", "-n", "0", "-o", "json"], Vec::new()).await;
    let array: Value = serde_json::from_slice(&array).expect("JSON");
    assert_eq!(array.as_array().map(Vec::len), Some(all));

    // The copy has spaces instead of line breaks, so its events are duplicates.
    let publishing = ["publish", "--file", "-", "-o", "json"];
    let told: Value =
        serde_json::from_slice(&command(&copy, &publishing, printed.clone()).await).expect("JSON");
    assert_eq!((&told["accepted"], &told["rejected"]), (&all.into(), &0.into()));
    let told: Value =
        serde_json::from_slice(&command(&server, &publishing, printed).await).expect("JSON");
    assert_eq!((&told["duplicate"], &told["conflict"]), (&all.into(), &0.into()));
    let request = ListEventsRequest {
        payload_format: PayloadFormat::Json.into(),
        ..ListEventsRequest::default()
    };
    for event in list_all(&mut copy.client().await, request).await {
        let id: usize = event.event_id.parse().expect("a number");
        let sent = HOSTILE[id].trim().replace(['\n', '\r'], " ");
        assert_eq!(payload_text(&event), sent);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn rejected_lines_are_one_line_each() {
    let server = TestServer::start(Backend::Sqlite).await;
    let rejects = server.database.path("rejects");
    let input = "{\"topic\":\"\",\"event_id\":\"1\",\"source\":\"s\",\r\"payload\":{\r}}\n\
                 {\"a\\nline 9 was rejected\":1}\nno\u{2028}JSON\r\n";
    let mut publishing = program();
    publishing
        .args(["publish", "--file", "-", "--rejects"])
        .arg(&rejects)
        .env("EVENT_AGGREGATOR_ADDR", server.address.to_string())
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
    let mut child = publishing.spawn().expect("spawn");
    child.stdin.take().expect("piped").write_all(input.as_bytes()).expect("write");
    let output = child.wait_with_output().expect("output");
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(said.lines().filter(|line| line.contains("was rejected")).count(), 3, "{said}");
    assert!(!said.contains("\nline 9"), "{said}");
    let rejected = std::fs::read_to_string(rejects).expect("rejects");
    assert_eq!(rejected.split_terminator('\n').count(), 3, "{rejected}");
    for line in rejected.split_terminator('\n') {
        serde_json::from_str::<Value>(line).expect("an object");
    }
}
