//! Plain HTTP with JSON, as used by curl and browsers.

use serde_json::{Value, json};
use testkit::http::Response;
use tokio::{
    io::{AsyncBufReadExt, BufReader, Lines},
    net::TcpStream,
};

use crate::harness::*;

on_both_stores!(
    one_event_is_published_twice,
    batches_are_accepted_as_array_or_ndjson,
    violations_are_reported_by_field,
    malformed_bodies_have_specific_statuses,
    events_are_listed_page_by_page,
    an_event_is_found_by_its_key,
    statistics_are_numbers,
    statistics_name_the_largest_topics,
    sse_resumes_after_last_event_id,
    probes_and_unknown_paths_are_answered,
    dashboard_is_served_with_csp,
);

async fn one_event_is_published_twice(backend: Backend) {
    let server = TestServer::start(backend).await;
    let event = r#"{"topic":"t","event_id":"1","source":"s","payload":{"n":1}}"#;
    let first = post(&server, event).await;
    assert_eq!(first.status, 200);
    let first = first.json();
    assert_eq!((&first["status"], &first["event_id"]), (&json!("accepted"), &json!("1")));
    assert_eq!(first["unique_processed"], 1);

    let second = post_as(&server, "application/json; charset=utf-8", event).await.json();
    assert_eq!(second["status"], "duplicate");
    assert_eq!(second["detail"], "duplicate event");
    assert_eq!((&second["received"], &second["duplicate_dropped"]), (&json!(1), &json!(1)));
    assert_eq!(second["first_received_at"], first["first_received_at"]);

    let other =
        post(&server, r#"{"topic":"t","event_id":"1","source":"x","timestamp":null}"#).await;
    assert_eq!(other.json()["status"], "conflict");
    assert_eq!(other.json()["differing_fields"], json!(["source", "payload"]));
    assert_eq!(counters(&mut server.client().await).await, [3, 1, 2, 1]);
}

async fn batches_are_accepted_as_array_or_ndjson(backend: Backend) {
    let server = TestServer::start(backend).await;
    let event = |id: &str| format!(r#"{{"topic":"t","event_id":"{id}","source":"s"}}"#);
    let array = format!("[{},{},{}]", event("1"), event("2"), event("1"));
    let answer = post(&server, &array).await.json();
    assert_eq!(answer["status"], "ok");
    let verdicts: Vec<&str> = answer["results"]
        .as_array()
        .expect("results")
        .iter()
        .map(|result| result["status"].as_str().expect("a status"))
        .collect();
    assert_eq!(verdicts, ["accepted", "accepted", "duplicate"]);
    let lines = format!("{}\n\n{}\n", event("3"), event("2"));
    let answer = post_as(&server, "application/x-ndjson", &lines).await.json();
    assert_eq!((&answer["unique_processed"], &answer["duplicate_dropped"]), (&json!(1), &json!(1)));
    assert_eq!(post(&server, "[]").await.json()["received"], 0);
    assert_eq!(server.stored().await, 3);
}

async fn violations_are_reported_by_field(backend: Backend) {
    let server = TestServer::start(backend).await;
    let fields = |answer: &Response| -> Vec<String> {
        assert_eq!(answer.status, 422, "{}", answer.body);
        let detail = answer.json()["detail"].as_array().expect("detail").clone();
        detail.iter().map(|fault| fault["field"].as_str().expect("field").to_owned()).collect()
    };
    let bad = r#"{"topic":" ","event_id":7,"timestamp":"soon","payload":[],"extra":1}"#;
    let named = ["topic", "event_id", "source", "timestamp", "payload", "extra"];
    assert_eq!(fields(&post(&server, bad).await), named);
    let good = r#"{"topic":"t","event_id":"1","source":"s"}"#;
    let answer = post(&server, &format!("[{good},{{}},null]")).await;
    assert_eq!(fields(&answer), ["[1].topic", "[1].event_id", "[1].source", "[2].event"]);
    assert_eq!(server.stored().await, 0, "all or nothing");
    for (path, named) in [
        ("/events?limit=0&order=up&colour=red", vec!["limit", "order", "colour"]),
        ("/events?start_time=2&topic=", vec!["start_time", "topic"]),
        ("/events?page_token=x", vec!["page_token"]),
        ("/events/stream?cursor=x", vec!["cursor"]),
        ("/stats?topic=%20&max_topics=0&colour=red", vec!["topic", "max_topics", "colour"]),
    ] {
        assert_eq!(fields(&get(&server, path).await), named, "{path}");
    }
}

async fn malformed_bodies_have_specific_statuses(backend: Backend) {
    let server = TestServer::start(backend).await;
    for body in ["", "{", "nonsense", "{\"topic\":\"t\"} ]"] {
        assert_eq!(post(&server, body).await.status, 400, "{body}");
    }
    let form = post_as(&server, "application/x-www-form-urlencoded", "{}").await;
    assert_eq!(form.status, 415);
    assert!(form.body.contains("content-type: application/json"), "{}", form.body);
    let many = format!("[{}{{}}]", "{},".repeat(1_000));
    assert_eq!(post(&server, &many).await.status, 413);
    // Of millions of items, only the limit and one more are kept, but all are parsed.
    let millions = format!("[{}1", "1,".repeat(1 << 20));
    assert_eq!(post(&server, &format!("{millions}]")).await.status, 413);
    assert_eq!(post(&server, &millions).await.status, 400);
    let lines = post_as(&server, "application/x-ndjson", &"1\n".repeat(1 << 20)).await;
    assert_eq!(lines.status, 413);
    let fields = format!("{{{}\"topic\":\"t\"}}", "\"\":1,".repeat(100));
    let answer = post(&server, &fields).await;
    assert_eq!((answer.status, &answer.json()["detail"][0]["field"]), (422, &json!("event")));
    let large = format!("\"{}\"", "x".repeat(4 << 20));
    assert_eq!(post(&server, &large).await.status, 413);
    assert_eq!(server.stored().await, 0);
}

async fn events_are_listed_page_by_page(backend: Backend) {
    let server = TestServer::start(backend).await;
    let mut client = server.client().await;
    for n in 0..25 {
        let exact = format!(r#"{{ "n" : {n}.0 }}"#);
        publish(&mut client, vec![event_with("ü t", &format!("{n:02}"), &exact)]).await;
    }
    let mut path = "/events?topic=%C3%BC+t".to_owned();
    let mut ids = Vec::new();
    loop {
        let page = get(&server, &path).await;
        assert_eq!(page.status, 200);
        let events = page.json();
        for event in events.as_array().expect("events") {
            ids.push(event["event_id"].as_str().expect("id").to_owned());
        }
        assert!(page.body.contains(r#""payload":{ "n" : "#), "the exact text");
        let Some(link) = page.header("link") else { break };
        assert!(link.ends_with("; rel=\"next\""), "{link}");
        path = link[1..link.find('>').expect("an address")].to_owned();
    }
    let expected: Vec<String> = (0..25).rev().map(|n| format!("{n:02}")).collect();
    assert_eq!(ids, expected);
    let oldest = get(&server, "/events?order=oldest&limit=1&source=test").await.json();
    assert_eq!(oldest[0]["event_id"], "00");
    let since = oldest[0]["received_at"].as_str().expect("a time").to_owned();
    let before = get(&server, &format!("/events?end_time={since}")).await.json();
    assert_eq!(before, json!([]));
}

async fn an_event_is_found_by_its_key(backend: Backend) {
    let server = TestServer::start(backend).await;
    publish(&mut server.client().await, vec![event("a/b", "ü 1")]).await;
    let found = get(&server, "/events/a%2Fb/%C3%BC%201").await;
    assert_eq!((found.status, &found.json()["event_id"]), (200, &json!("ü 1")));
    assert_eq!(get(&server, "/events/a/1").await.status, 404);
}

async fn statistics_are_numbers(backend: Backend) {
    let server = TestServer::start(backend).await;
    publish(&mut server.client().await, vec![event("a", "1"), event("b", "1"), event("a", "1")])
        .await;
    let stats = get(&server, "/stats").await.json();
    assert_eq!(stats["received"], 3);
    assert_eq!(stats["unique_processed"], 2);
    assert_eq!(stats["duplicate_dropped"], 1);
    assert_eq!(stats["topics_active"], 2);
    assert_eq!(stats["topics"], json!(["a", "b"]));
    assert_eq!(stats["since_start"]["received"], 3);
    assert!(stats["uptime_seconds"].is_u64());
    assert_eq!(get(&server, "/stats?topic=b").await.json()["received"], 1);
}

async fn statistics_name_the_largest_topics(backend: Backend) {
    let server = TestServer::start(backend).await;
    let events = [("a", "1"), ("b", "1"), ("b", "2"), ("b", "2")].map(|(t, id)| event(t, id));
    let mut client = server.client().await;
    publish(&mut client, events.to_vec()).await;
    publish(&mut client, vec![event_with("b", "1", r#"{"x":1}"#)]).await;
    let stats = get(&server, "/stats").await.json();
    let large = &stats["by_topic"][0];
    assert_eq!((&large["topic"], &large["received"]), (&json!("b"), &json!(4)), "largest first");
    assert_eq!((&large["unique_processed"], &large["duplicate_dropped"]), (&json!(2), &json!(2)));
    assert_eq!(large["conflicts"], 1);
    let newest = get(&server, "/events/b/2").await.json();
    assert!(large["last_received_at"].as_str() >= newest["received_at"].as_str());
    assert_eq!(stats["by_topic"][1]["topic"], "a");

    let cut = get(&server, "/stats?max_topics=1").await.json();
    assert_eq!((&cut["received"], &cut["topics_active"]), (&json!(5), &json!(2)));
    assert_eq!(
        (&cut["topics"], cut["by_topic"].as_array().map(Vec::len)),
        (&json!(["b"]), Some(1))
    );
    let all = get(&server, "/stats?max_topics=100000").await.json();
    assert_eq!(all["by_topic"].as_array().map(Vec::len), Some(2));
    let one = get(&server, "/stats?topic=a").await.json();
    assert_eq!(
        (&one["by_topic"][0]["topic"], one["by_topic"].as_array().map(Vec::len)),
        (&json!("a"), Some(1))
    );
}

/// The next event of an SSE stream: its id and data.
async fn next_event(lines: &mut Lines<BufReader<TcpStream>>) -> (String, Value) {
    let mut id = String::new();
    loop {
        let line = lines.next_line().await.expect("a line").expect("no end");
        if let Some(text) = line.strip_prefix("id: ") {
            id = text.to_owned();
        }
        if let Some(text) = line.strip_prefix("data: ") {
            return (id, serde_json::from_str(text).expect("JSON"));
        }
    }
}

async fn sse_resumes_after_last_event_id(backend: Backend) {
    let server = TestServer::start(backend).await;
    let mut client = server.client().await;
    publish(&mut client, vec![event("t", "1"), event("t", "2"), event("u", "3")]).await;
    let stream = |path: &'static str, more: String| {
        let request = format!("GET {path} HTTP/1.1\r\nHost: test\r\n{more}\r\n");
        let server = &server;
        async move { BufReader::new(send(server, request).await).lines() }
    };
    let mut first = stream("/events/stream?cursor=beginning&topic=t", String::new()).await;
    let (id, event_1) = next_event(&mut first).await;
    assert_eq!(event_1["event_id"], "1");
    drop(first);
    // As a browser reconnects: the same URL with the last event id.
    let again = format!("Last-Event-ID: {id}\r\n");
    let mut second = stream("/events/stream?cursor=beginning&topic=t", again).await;
    assert_eq!(next_event(&mut second).await.1["event_id"], "2");
    publish(&mut client, vec![event("u", "4"), event("t", "5")]).await;
    assert_eq!(next_event(&mut second).await.1["event_id"], "5");
}

async fn probes_and_unknown_paths_are_answered(backend: Backend) {
    let server = TestServer::start(backend).await;
    assert_eq!(get(&server, "/healthz").await.status, 200);
    assert_eq!(get(&server, "/readyz").await.status, 200);
    let nothing = get(&server, "/nothing").await;
    assert_eq!(nothing.status, 404);
    assert!(nothing.json()["error"].as_str().is_some_and(|error| error.contains("/events")));
    assert_eq!(get(&server, "/publish").await.status, 405);
}

async fn dashboard_is_served_with_csp(backend: Backend) {
    let server = TestServer::start(backend).await;
    let page = get(&server, "/").await;
    assert_eq!((page.status, page.header("content-type")), (200, Some("text/html; charset=utf-8")));
    let policy = page.header("content-security-policy").expect("a policy");
    assert!(policy.starts_with("default-src 'none'; script-src 'self';"), "{policy}");
    assert!(!policy.contains("unsafe"), "{policy}");
    assert_eq!(page.header("x-content-type-options"), Some("nosniff"));
    assert_eq!(page.header("referrer-policy"), Some("no-referrer"));
    let parts = page.body.split(['"', ' ']).filter(|text| text.starts_with("/dashboard/"));
    assert!(parts.clone().count() >= 4, "{}", page.body);
    for path in ["/"].into_iter().chain(parts) {
        let part = get(&server, path).await;
        assert_eq!(part.status, 200, "{path}");
        let tag = part.header("etag").expect("a tag");
        let again = format!(
            "GET {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\
             If-None-Match: \"old\", W/{tag}\r\n\r\n"
        );
        let again = call(&server, again).await;
        assert_eq!((again.status, &*again.body), (304, ""), "{path}");
        assert_eq!(again.header("etag"), Some(tag), "{path}");
    }
}
