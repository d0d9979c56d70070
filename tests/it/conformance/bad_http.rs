//! Invalid and borderline input that is specific to plain HTTP.

use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::harness::*;

on_both_stores!(
    timestamps_are_truncated_to_microseconds_or_rejected,
    invalid_utf8_is_rejected,
    limit_is_clamped_to_maximum_page_size,
    invalid_last_event_id_is_rejected,
);

async fn timestamps_are_truncated_to_microseconds_or_rejected(backend: Backend) {
    let server = TestServer::start(backend).await;
    let body = |id: usize, time: &serde_json::Value| {
        json!({"topic": "t", "event_id": id.to_string(), "source": "s", "timestamp": time})
            .to_string()
    };
    for time in [
        json!(""),
        json!(5),
        json!(["2026-01-31T12:00:00Z"]),
        json!("2026-01-31"),
        json!("2026-01-31T12:00:00"),
        json!("2026-02-30T12:00:00Z"),
        json!("2026-01-31T25:00:00Z"),
        json!("0000-12-31T23:59:59Z"),
        json!("0001-01-01T00:00:00+00:01"),
        json!("9999-12-31T23:59:59-00:01"),
        json!("10000-01-01T00:00:00Z"),
        json!("292277026596-12-04T15:30:07Z"),
    ] {
        let answer = post(&server, &body(0, &time)).await;
        assert_eq!(answer.status, 422, "{time}: {}", answer.body);
        assert_eq!(answer.json()["detail"][0]["field"], "timestamp", "{time}");
    }
    assert_eq!(server.stored().await, 0);

    let fine = [
        ("0001-01-01T00:00:00Z", "0001-01-01T00:00:00Z"),
        ("9999-12-31T23:59:59.9999999Z", "9999-12-31T23:59:59.999999Z"),
        ("1969-12-31T23:59:59.0000019Z", "1969-12-31T23:59:59.000001Z"),
        ("2026-01-31T12:00:00.123456789+02:00", "2026-01-31T10:00:00.123456Z"),
    ];
    for (id, (sent, kept)) in fine.into_iter().enumerate() {
        let answer = post(&server, &body(id, &json!(sent))).await;
        assert_eq!(answer.status, 200, "{sent}: {}", answer.body);
        let given = get(&server, &format!("/events/t/{id}")).await.json();
        assert_eq!(given["timestamp"], kept);
    }
}

async fn invalid_utf8_is_rejected(backend: Backend) {
    let server = TestServer::start(backend).await;
    for (before, after) in [
        (r#"{"topic":"t"#, r#"","event_id":"1","source":"s"}"#),
        (r#"{"topic":"t","event_id":"1","source":"s","payload":{"x":""#, r#""}}"#),
        ("", ""),
    ] {
        for bytes in [&b"\xfc"[..], b"\xc0\x80", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\xe2\x82"]
        {
            let body = [before.as_bytes(), bytes, after.as_bytes()].concat();
            let head = format!(
                "POST /publish HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\
                 Content-Type: application/json\r\nContent-Length: {}\r\n\r\n",
                body.len()
            );
            let mut connection = TcpStream::connect(server.address).await.expect("connect");
            connection.write_all(&[head.into_bytes(), body].concat()).await.expect("send");
            let mut answer = String::new();
            connection.read_to_string(&mut answer).await.expect("an answer");
            assert!(answer.starts_with("HTTP/1.1 400 "), "{bytes:?}: {answer}");
        }
    }
    assert_eq!(counters(&mut server.client().await).await, [0; 4]);
}

async fn limit_is_clamped_to_maximum_page_size(backend: Backend) {
    let server = TestServer::start(backend).await;
    let mut client = server.client().await;
    publish(&mut client, (0..1_000).map(|id| event("t", &id.to_string())).collect()).await;
    publish(&mut client, vec![event("t", "last")]).await;
    for limit in ["1001", "4294967296", "18446744073709551615"] {
        let answer = get(&server, &format!("/events?limit={limit}")).await;
        assert_eq!(answer.status, 200, "{limit}");
        assert_eq!(answer.json().as_array().expect("events").len(), 1_000, "{limit}");
        assert!(answer.header("link").is_some(), "{limit}");
    }
    for limit in ["0", "-1", "1.5", "1e3", "", "18446744073709551616"] {
        let answer = get(&server, &format!("/events?limit={limit}")).await;
        assert_eq!(answer.status, 422, "{limit}");
        assert_eq!(answer.json()["detail"][0]["field"], "limit", "{limit}");
    }
}

async fn invalid_last_event_id_is_rejected(backend: Backend) {
    let server = TestServer::start(backend).await;
    publish(&mut server.client().await, vec![event("t", "1")]).await;
    let page = get(&server, "/events").await.json();
    let cursor = page[0]["cursor"].as_str().expect("a cursor").to_owned();
    for id in ["x", "ü", &cursor[1..], &format!("{cursor}A"), &"A".repeat(10_000)] {
        // The cursor in the URL is valid.
        let request = format!(
            "GET /events/stream?cursor=beginning HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\
             Last-Event-ID: {id}\r\n\r\n"
        );
        let answer = call(&server, request).await;
        assert_eq!(answer.status, 422, "{id}: {}", answer.body);
        assert_eq!(answer.json()["detail"][0]["field"], "cursor", "{id}");
    }
}
