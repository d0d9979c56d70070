//! Client commands, as a person or a script runs them.

use std::{
    io::Write,
    process::{Output, Stdio},
};

use serde_json::Value;

use crate::harness::*;

async fn run(server: &TestServer, arguments: &[&str]) -> Output {
    run_with_input(server, arguments, "").await
}

async fn run_with_input(server: &TestServer, arguments: &[&str], input: &str) -> Output {
    let mut command = program();
    command.args(arguments).env("EVENT_AGGREGATOR_ADDR", server.address.to_string());
    let input = input.to_owned();
    let run = move || {
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("spawn");
        let mut stdin = child.stdin.take().expect("piped");
        stdin.write_all(input.as_bytes()).expect("write");
        drop(stdin);
        child.wait_with_output().expect("output")
    };
    tokio::task::spawn_blocking(run).await.expect("run")
}

fn stdout(output: &Output) -> &str {
    std::str::from_utf8(&output.stdout).expect("UTF-8")
}

fn stderr(output: &Output) -> &str {
    std::str::from_utf8(&output.stderr).expect("UTF-8")
}

fn json(output: &Output) -> Value {
    assert!(output.status.success(), "{}", stderr(output));
    serde_json::from_str(stdout(output)).expect("JSON")
}

#[tokio::test(flavor = "multi_thread")]
async fn simulation_is_counted_exactly() {
    for backend in [Backend::Sqlite, Backend::Postgres] {
        let server = TestServer::start(backend).await;
        let simulate = [
            "publish",
            "-o",
            "table",
            "--simulate",
            "20000",
            "--duplicates",
            "0.3",
            "--topics",
            "5",
        ];
        let output = run(&server, &simulate).await;
        assert!(output.status.success(), "{}", stderr(&output));
        for (result, events) in [("accepted", "14000"), ("duplicate", "6000"), ("total", "20000")] {
            let row = stdout(&output).lines().find(|row| row.contains(result)).expect(result);
            assert!(row.contains(events), "{row}");
        }

        let stats = json(&run(&server, &["stats"]).await);
        assert_eq!(stats["received"], 20_000);
        assert_eq!(stats["unique_processed"], 14_000);
        assert_eq!(stats["duplicate_dropped"], 6_000);
        assert_eq!(stats["conflicts"], 0);
        assert_eq!(stats["topics_active"], 5);
        assert_eq!(stats["topics"].as_array().expect("topics").len(), 5);
        assert_eq!(stats["since_start"]["received"], 20_000);
        assert_eq!(server.stored().await, 14_000);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn get_shows_event_by_key() {
    let server = TestServer::start(Backend::Sqlite).await;
    publish(&mut server.client().await, vec![event("t", "a b")]).await;
    let found = json(&run(&server, &["get", "t", "a b"]).await);
    assert_eq!((&found["event_id"], &found["source"]), (&"a b".into(), &"test".into()));
    let table = run(&server, &["get", "t", "a b", "-o", "table"]).await;
    assert!(stdout(&table).contains("| a b"), "{}", stdout(&table));
    let missing = run(&server, &["get", "t", "none"]).await;
    assert_eq!(missing.status.code(), Some(1));
    assert!(stderr(&missing).contains("No event has this key"), "{}", stderr(&missing));
    let invalid = run(&server, &["get", "t", " "]).await;
    assert_eq!(invalid.status.code(), Some(64 + 3));
}

#[tokio::test(flavor = "multi_thread")]
async fn completions_are_generated() {
    for shell in ["bash", "zsh", "fish"] {
        let output = program().args(["completions", shell]).output().expect("completions");
        assert!(output.status.success());
        for command in ["serve", "tail", "completions"] {
            assert!(stdout(&output).contains(command), "{shell} {command}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn list_output_can_be_published() {
    let server = TestServer::start(Backend::Sqlite).await;
    let lines = concat!(
        r#"{"topic":"t","event_id":"1","source":"s","payload":{ "n" : 9007199254740993 }}"#,
        "\n\n",
        r#"{"topic":"t","event_id":"2","timestamp":"9999-12-31T23:59:59.5Z","source":"s"}"#,
        "\n",
    );
    let output = run_with_input(&server, &["publish", "--file", "-", "-o", "json"], lines).await;
    assert_eq!(json(&output)["accepted"], 2);

    let listed = run(&server, &["list", "--oldest-first"]).await;
    assert_eq!(stdout(&listed).lines().count(), 2);
    assert!(stdout(&listed).contains(r#""payload":{ "n" : 9007199254740993 }"#));
    assert!(stdout(&listed).contains(r#""timestamp":"9999-12-31T23:59:59.5Z""#));

    let other = TestServer::start(Backend::Postgres).await;
    for (result, count) in [("accepted", 2), ("duplicate", 2)] {
        let publish = ["publish", "--file", "-", "-o", "json"];
        let output = run_with_input(&other, &publish, stdout(&listed)).await;
        assert_eq!(json(&output)[result], count);
    }
    let file = server.database.path("events.ndjson");
    std::fs::write(&file, &listed.stdout).expect("write");
    let publish = ["publish", "-o", "json", "--file", file.to_str().expect("UTF-8")];
    assert_eq!(json(&run(&other, &publish).await)["duplicate"], 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn invalid_lines_are_reported_and_others_published() {
    let server = TestServer::start(Backend::Sqlite).await;
    let lines = concat!(
        "not json\n",
        r#"{"topic":"t","event_id":"1","source":"s"}"#,
        "\n",
        r#"{"topic":"t","event_id":"2"}"#,
        "\n",
        r#"{"topic":"t","event_id":"3","source":"s","payloda":{}}"#,
        "\n",
        r#"{"topic":"t","event_id":"4","source":"s","timestamp":"today"}"#,
        "\n",
    );
    let output = run_with_input(&server, &["publish", "--file", "-"], lines).await;
    assert_eq!(output.status.code(), Some(1));
    for text in
        ["line 1 ", "line 3 was rejected: source must", "line 4 ", "payloda", "line 5 ", "RFC 3339"]
    {
        assert!(stderr(&output).contains(text), "{text}: {}", stderr(&output));
    }
    assert!(!stderr(&output).contains("line 2 "));
    assert_eq!(server.stored().await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn any_file_is_read_line_by_line() {
    let server = TestServer::start(Backend::Sqlite).await;
    let file = server.database.path("events.ndjson");
    let good = |id: u8| format!("{{\"topic\":\"t\",\"event_id\":\"{id}\",\"source\":\"s\"}}\n");
    let lines = [
        format!("\u{feff}{}", good(1)).into_bytes(),
        b"\xff\xfe\0\n".to_vec(),
        [b"x".repeat(3 << 20), b"\n".to_vec()].concat(),
        good(4).into_bytes(),
        b"[\"t\",\"5\",null,\"s\",{},null]\n".to_vec(),
        good(6).trim_end().as_bytes().to_vec(),
    ];
    std::fs::write(&file, lines.concat()).expect("write");
    let publish = ["publish", "--file", file.to_str().expect("UTF-8"), "-o", "json"];
    let output = run(&server, &publish).await;
    assert_eq!(output.status.code(), Some(1));
    let tally: Value = serde_json::from_str(stdout(&output)).expect("JSON");
    assert_eq!((tally["accepted"].as_u64(), tally["rejected"].as_u64()), (Some(3), Some(3)));
    for text in ["line 2 was rejected: is not UTF-8", "line 3 was rejected: is longer", "line 5 "] {
        assert!(stderr(&output).contains(text), "{text}: {}", stderr(&output));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn conflicts_are_reported_with_line_numbers() {
    let server = TestServer::start(Backend::Sqlite).await;
    let lines = concat!(
        r#"{"topic":"t","event_id":"1","source":"s"}"#,
        "\n",
        r#"{"topic":"t","event_id":"1","source":"other","payload":{"n":1}}"#,
        "\n",
    );
    let output = run_with_input(&server, &["publish", "--file", "-"], lines).await;
    assert!(output.status.success());
    assert!(stderr(&output).contains("line 2 conflicts"), "{}", stderr(&output));
    assert!(stderr(&output).contains("source, payload"), "{}", stderr(&output));
}

#[tokio::test(flavor = "multi_thread")]
async fn closed_stdout_is_not_an_error() {
    let server = TestServer::start(Backend::Sqlite).await;
    for command in [&["publish", "--simulate", "100"][..], &["stats"], &["list"], &["health"]] {
        let mut child = program()
            .args(command)
            .args(["--addr", &server.address.to_string()])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("spawn");
        drop(child.stdout.take());
        let output = child.wait_with_output().expect("output");
        assert!(output.status.success() && output.stderr.is_empty(), "{}", stderr(&output));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn broken_pipe_is_not_an_error() {
    let server = TestServer::start(Backend::Sqlite).await;
    run(&server, &["publish", "--simulate", "3000", "--duplicates", "0"]).await;
    let address = server.address.to_string();
    let list = ["list", "-n", "0", "--addr", &address];
    for command in [&list[..], &["completions", "bash"], &["version"], &["--help"]] {
        let (reader, writer) = std::io::pipe().expect("pipe");
        let mut child =
            program().args(command).stdout(writer).stderr(Stdio::piped()).spawn().expect("spawn");
        let mut reader = reader;
        std::io::Read::read_exact(&mut reader, &mut [0; 16]).expect("the beginning");
        drop(reader);
        let mut errors = String::new();
        let stderr = child.stderr.as_mut().expect("piped");
        std::io::Read::read_to_string(stderr, &mut errors).expect("read");
        assert!(child.wait().expect("wait").success() && errors.is_empty(), "{errors}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn output_formats_are_correct() {
    let server = TestServer::start(Backend::Sqlite).await;
    let empty = json(&run(&server, &["list", "-o", "json"]).await);
    assert_eq!(empty, serde_json::json!([]));
    let published = json(&run(&server, &["publish", "--simulate", "1500"]).await);
    assert_eq!(published["total"], 1500, "one line of JSON into a pipe");
    let listed = json(&run(&server, &["list", "-n", "0", "-o", "json"]).await);
    let lines = run(&server, &["list", "-n", "0"]).await;
    let lines = stdout(&lines).lines().map(|line| serde_json::from_str(line).expect("JSON"));
    assert_eq!(listed, Value::Array(lines.collect()), "one document, or one object a line");
    assert_eq!(listed.as_array().expect("array").len(), 1050);
    for command in [&["stats"][..], &["version"]] {
        let both = ["json", "ndjson"].map(|output| [command, &["-o", output]].concat());
        let fields = json(&run(&server, &both[0]).await).as_object().expect("object").len();
        assert_eq!(json(&run(&server, &both[1]).await).as_object().expect("object").len(), fields);
    }
    let url = format!("http://{}/", server.address);
    assert!(run(&server, &["health", "--addr", &url]).await.status.success());
}

#[test]
fn version_and_exit_codes_are_printed() {
    let version = json(&program().arg("version").output().expect("run"));
    assert_eq!(version["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(version["contract"], "event_aggregator.v1");
    let help = program().arg("--help").output().expect("run");
    assert!(stdout(&help).contains("64 + N"), "{}", stdout(&help));
}

#[tokio::test(flavor = "multi_thread")]
async fn tables_and_hints_are_printed() {
    let server = TestServer::start(Backend::Sqlite).await;
    let empty = run(&server, &["stats", "-o", "table"]).await;
    assert!(stdout(&empty).contains("publish --simulate"));
    let empty = run(&server, &["list", "-o", "table"]).await;
    assert!(stderr(&empty).contains("publish --simulate") && stdout(&empty).is_empty());

    run(&server, &["publish", "--simulate", "100"]).await;
    let table = run(&server, &["stats", "-o", "table"]).await;
    assert!(stdout(&table).contains("| all"), "{}", stdout(&table));
    let table = run(&server, &["list", "-o", "table", "-n", "3"]).await;
    assert_eq!(stdout(&table).matches("simulator").count(), 3);
    assert_eq!(stdout(&run(&server, &["list", "-n", "0"]).await).lines().count(), 70);
}

#[tokio::test(flavor = "multi_thread")]
async fn exit_code_reflects_grpc_status() {
    let server = TestServer::start(Backend::Sqlite).await;
    let healthy = run(&server, &["health"]).await;
    assert_eq!((healthy.status.code(), stdout(&healthy)), (Some(0), "serving\n"));

    let refused = run(&server, &["list", "--topic", " "]).await;
    assert_eq!(refused.status.code(), Some(64 + 3), "64 and INVALID_ARGUMENT");
    assert!(stderr(&refused).contains("topic must not"), "{}", stderr(&refused));

    let address = server.address.to_string();
    server.stop().await;
    for command in [&["health"][..], &["stats"], &["list"], &["publish", "--simulate", "1"]] {
        let output = program().args(command).args(["--addr", &address]).output().expect("run");
        assert_eq!(output.status.code(), Some(1), "{command:?}");
        assert!(stderr(&output).contains("event-aggregator serve"), "{}", stderr(&output));
        assert_eq!(stderr(&output).lines().count(), 1, "{}", stderr(&output));
    }
}

#[test]
fn usage_errors_are_explained() {
    for (arguments, text) in [
        (&["publish"][..], "--simulate"),
        (&["publish", "--simulate", "1", "--file", "x"], "cannot be used with"),
        (&["publish", "--simulate", "1", "--duplicates", "2"], "between 0 and 1"),
        (&["list", "--since", "yesterday"], "RFC 3339"),
        (&["lst"], "list"),
        (&[], "Usage"),
    ] {
        let output = program().args(arguments).output().expect("run");
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        assert!(stderr(&output).contains(text), "{}", stderr(&output));
    }
    let missing = program().args(["publish", "--file", "/no/such/file"]).output().expect("run");
    assert_eq!(missing.status.code(), Some(1));
    assert!(stderr(&missing).contains("/no/such/file"));
}
