//! HTTP semantics of all calls: media types, parameters and headers.

use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::harness::*;

on_both_stores!(media_types_are_case_insensitive, parameters_are_text, responses_are_private,);

async fn media_types_are_case_insensitive(backend: Backend) {
    let server = TestServer::start(backend).await;
    let event = r#"{"topic":"t","event_id":"1","source":"s"}"#;
    for media_type in ["Application/JSON", "APPLICATION/X-NDJSON; charset=utf-8"] {
        assert_eq!(post_as(&server, media_type, event).await.status, 200, "{media_type}");
    }
    let event = r#"{"specversion":"1.0","type":"t","id":"2","source":"s"}"#;
    let answer = post_as(&server, "application/CloudEvents+json", event).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
}

async fn parameters_are_text(backend: Backend) {
    let server = TestServer::start(backend).await;
    for path in ["/events", "/events/stream", "/stats"] {
        let answer = get(&server, &format!("{path}?topic=%FF&topic=t&x%C3=1")).await;
        assert_eq!(answer.status, 422, "{path}: {}", answer.body);
        let faults =
            ["topic", "query"].map(|it| json!({ "field": it, "message": "must be UTF-8" }));
        assert_eq!(answer.json()["detail"], json!(faults), "{path}");
    }
    let mut client = server.client().await;
    publish(&mut client, vec![event("a+b ü&=", "1"), event("t", "1")]).await;
    let found = get(&server, "/events?topic=a%2Bb+%C3%BC%26%3D&&limit=5").await.json();
    assert_eq!(found.as_array().map(Vec::len), Some(1), "{found}");
}

async fn responses_are_private(backend: Backend) {
    let server = TestServer::start(backend).await;
    publish(&mut server.client().await, vec![event("t", "1")]).await;
    for path in [
        "/events",
        "/events/t/1",
        "/events/t/2",
        "/events?limit=x",
        "/stats",
        "/metrics",
        "/openapi.json",
        "/nowhere",
        "/publish",
    ] {
        let answer = get(&server, path).await;
        assert_eq!(answer.header("cache-control"), Some("no-store"), "{path}");
        assert_eq!(answer.header("x-content-type-options"), Some("nosniff"), "{path}");
    }
    let page = get(&server, "/").await;
    assert_eq!(page.header("cache-control"), Some("no-cache"), "it is asked about by its tag");
    let mut stream = TcpStream::connect(server.address).await.expect("connect");
    let request = b"GET /events/stream HTTP/1.1\r\nHost: test\r\n\r\n";
    stream.write_all(request).await.expect("send");
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.expect("a head"));
    }
    let head = String::from_utf8(head).expect("text");
    assert!(head.contains("cache-control: no-store"), "{head}");
    assert!(head.contains("x-content-type-options: nosniff"), "{head}");
}
