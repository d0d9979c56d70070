//! Output to a terminal is escaped, whatever names and payloads contain.

use std::{
    io::Read,
    process::{Command, Stdio},
};

use serde_json::Value;

use crate::harness::*;

/// Characters of a name, and of a payload, which may also contain control characters.
const NAME: &str = "a\u{202e}b\u{2066}c\u{200b}d\u{2028}e\u{feff}f";
const PAYLOAD: &str = "{\"x\":\n\"a\u{9b}31m\u{85}\u{7f}\u{202e}\u{2029}\u{e0041}\"}";

/// Characters that must not reach the terminal, apart from its own line breaks.
fn is_unsafe(character: char) -> bool {
    let is_break = matches!(character, '\r' | '\n');
    (character.is_control() && !is_break)
        || matches!(character, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}')
        || matches!(character, '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{e0000}'..='\u{e007f}')
}

/// The program in a pseudo-terminal, including standard error.
fn in_terminal(server: &TestServer, arguments: &str) -> Command {
    let mut script = wrapper("script");
    script
        .args(["-qec", &format!("'{PROGRAM}' {arguments}"), "/dev/null"])
        .env("EVENT_AGGREGATOR_ADDR", server.address.to_string())
        .env("TERM", "xterm")
        .stdin(Stdio::null())
        .stdout(Stdio::piped());
    script
}

async fn seen(server: &TestServer, arguments: &str) -> String {
    let mut command = in_terminal(server, arguments);
    let run = move || command.output().expect("script is installed");
    let output = tokio::task::spawn_blocking(run).await.expect("run");
    String::from_utf8(output.stdout).expect("UTF-8").replace("\r\n", "\n")
}

async fn hostile() -> TestServer {
    let server = TestServer::start(Backend::Sqlite).await;
    let event = event_with(NAME, NAME, PAYLOAD);
    let event = event_aggregator::proto::v1::Event { source: NAME.to_owned(), ..event };
    publish(&mut server.client().await, vec![event]).await;
    server
}

#[tokio::test(flavor = "multi_thread")]
async fn event_text_is_escaped() {
    let server = hostile().await;
    let get = format!("get '{NAME}' '{NAME}'");
    for (arguments, rows) in [
        ("list", 3),
        ("tail --from-start -n 1", 1),
        (&*get, 3),
        ("stats", 4),
        ("stats -o table --topic nothing", 1),
    ] {
        let text = seen(&server, arguments).await;
        assert!(!text.contains(is_unsafe), "{arguments}: {text:?}");
        assert_eq!(text.lines().count(), rows, "{arguments}: {text}");
        assert!(rows == 1 || text.contains(r"a\u{202e}b\u{2066}c"), "{arguments}: {text}");
    }
    let missing = seen(&server, &format!("get '{NAME}' ' '")).await;
    assert!(!missing.contains(is_unsafe), "{missing:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn escaped_json_is_equivalent() {
    let server = hostile().await;
    let mut values = Vec::new();
    for arguments in ["list -o ndjson", "tail --from-start -n 1 -o ndjson", "get N N -o ndjson"] {
        let arguments = arguments.replace('N', &format!("'{NAME}'"));
        let text = seen(&server, &arguments).await;
        assert!(!text.contains(is_unsafe), "{arguments}: {text:?}");
        assert_eq!(text.lines().count(), 1, "{arguments}: {text}");
        values.push(serde_json::from_str::<Value>(&text).expect("JSON"));
    }
    let mut listing = program();
    listing.arg("list").env("EVENT_AGGREGATOR_ADDR", server.address.to_string());
    let run = move || listing.output().expect("list");
    let piped = tokio::task::spawn_blocking(run).await.expect("run").stdout;
    let piped = String::from_utf8(piped).expect("UTF-8");
    // A pipe gets the original text.
    assert!(piped.contains(NAME) && piped.contains(&PAYLOAD.replace('\n', " ")), "{piped:?}");
    let piped: Value = serde_json::from_str(&piped).expect("JSON");
    assert_eq!(piped["payload"]["x"], "a\u{9b}31m\u{85}\u{7f}\u{202e}\u{2029}\u{e0041}");
    for value in values {
        for field in ["topic", "event_id", "source", "payload"] {
            assert_eq!(value[field], piped[field]);
        }
    }
    let stats = seen(&server, "stats -o json").await;
    assert!(!stats.contains(is_unsafe), "{stats:?}");
    let stats: Value = serde_json::from_str(&stats).expect("JSON");
    assert_eq!(stats["topics"][0]["topic"], NAME);
}

#[tokio::test(flavor = "multi_thread")]
async fn rejected_lines_and_watched_topics_are_escaped() {
    let server = hostile().await;
    let file = server.database.path("events");
    std::fs::write(&file, "{\"\u{9b}2J\u{202e}\":1}\n").expect("write");
    let text = seen(&server, &format!("publish --file '{}' -o table", file.display())).await;
    assert!(text.contains(r"\u{9b}2J\u{202e}"), "{text:?}");
    assert!(!text.contains(['\u{9b}', '\u{202e}']), "{text:?}");

    let mut watching = in_terminal(&server, "stats --watch 50ms").spawn().expect("script");
    let mut stdout = watching.stdout.take().expect("piped");
    let (mut text, mut part) = (Vec::new(), [0; 4096]);
    while !String::from_utf8_lossy(&text).contains("Press Ctrl-C to exit") {
        let read = stdout.read(&mut part).expect("read");
        assert!(read > 0, "{}", String::from_utf8_lossy(&text));
        text.extend_from_slice(&part[..read]);
    }
    watching.kill().expect("kill");
    watching.wait().expect("killed");
    let text = String::from_utf8_lossy(&text);
    assert!(text.contains(r"a\u{202e}b") && !text.contains(['\u{202e}', '\u{2028}']), "{text:?}");
}
