//! Payloads: returned unchanged, in the requested format.

use event_aggregator::proto::v1::{
    BatchGetEventsRequest, Event, EventKey, ListEventsRequest, PayloadFormat, PublishStatus,
    SubscribeRequest, event::Content, subscribe_response::Frame,
};
use prost::Message;
use prost_types::{Struct, Value, value::Kind};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::TcpStream,
};

use crate::harness::*;

on_both_stores!(
    json_text_is_returned_verbatim,
    struct_is_the_default_format,
    struct_and_equal_text_are_duplicates,
    struct_numbers_round_trip,
    lossy_payloads_are_returned_as_text,
    payload_keys_are_never_interpreted,
    missing_payload_is_an_empty_object,
    stored_payloads_fit_client_message_limits,
    many_duplicates_of_a_large_payload_are_compared_in_one_batch,
    largest_payloads_are_returned_over_http,
    small_duplicates_of_large_payloads_are_committed_in_parts,
);

fn as_json() -> ListEventsRequest {
    ListEventsRequest { payload_format: PayloadFormat::Json.into(), ..Default::default() }
}

async fn json_text_is_returned_verbatim(backend: Backend) {
    let server = TestServer::start(backend).await;
    let mut client = server.client().await;
    let texts = [
        "{}",
        " {\t\"b\" : 1 ,\r\n \"a\" : 2 } ",
        r#"{"a":1,"a":2}"#,
        r#"{"n":9007199254740993,"m":18446744073709551617,"x":1.10,"y":1E+2,"z":-0}"#,
        r#"{"s":"\u00e9\/\ud83d\ude00 é","":{"deep":[[[]]]}}"#,
        r#"{"wide":1e308,"tiny":5e-324,"long":3.14159265358979323846264338327950288}"#,
    ];
    let events = texts.iter().zip(0..).map(|(text, id)| event_with("t", &format!("{id}"), text));
    assert_eq!(publish(&mut client, events.collect()).await.unique_processed, texts.len() as i64);
    let mut listed = list_all(&mut client, as_json()).await;
    listed.sort_by_key(|event| event.event_id.clone());
    assert_eq!(listed.iter().map(payload_text).collect::<Vec<_>>(), texts);
    // Also in SQL queries.
    let shown = server.database.number("SELECT count(payload) FROM events").await;
    assert_eq!(shown, texts.len() as i64);
}

fn text(text: &str) -> Value {
    Value { kind: Some(Kind::StringValue(text.to_owned())) }
}

fn number(number: f64) -> Value {
    Value { kind: Some(Kind::NumberValue(number)) }
}

async fn struct_is_the_default_format(backend: Backend) {
    let server = TestServer::start(backend).await;
    let mut client = server.client().await;
    publish(&mut client, vec![event_with("t", "1", r#"{"a":"ü","b":1.5,"b":2}"#)]).await;
    let listed = list_all(&mut client, Default::default()).await;
    let fields = [("a".to_owned(), text("ü")), ("b".to_owned(), number(2.0))].into();
    assert_eq!(listed[0].content, Some(Content::Payload(Struct { fields })));
}

async fn struct_and_equal_text_are_duplicates(backend: Backend) {
    let server = TestServer::start(backend).await;
    let mut client = server.client().await;
    let fields =
        [("n".to_owned(), number(9_007_199_254_740_992.0)), ("s".to_owned(), text("\"\n"))];
    let structure = Event {
        content: Some(Content::Payload(Struct { fields: fields.into() })),
        ..event("t", "1")
    };
    publish(&mut client, vec![structure]).await;
    let listed = list_all(&mut client, as_json()).await;
    assert_eq!(payload_text(&listed[0]), r#"{"n":9007199254740992,"s":"\"\n"}"#);
    let same = event_with("t", "1", r#"{"s":"\"\n","n":9007199254740992}"#);
    assert_eq!(publish(&mut client, vec![same]).await.conflicts, 0);
}

async fn struct_numbers_round_trip(backend: Backend) {
    let server = TestServer::start(backend).await;
    let mut client = server.client().await;
    let mut random = fastrand::Rng::with_seed(1);
    let fields = (0..1_000).map(|n| (n.to_string(), number(random.f64() * 1_000.0))).collect();
    let content = Some(Content::Payload(Struct { fields }));
    publish(&mut client, vec![Event { content: content.clone(), ..event("t", "1") }]).await;
    let listed = list_all(&mut client, Default::default()).await;
    assert_eq!(listed[0].content, content);
    assert_eq!(publish(&mut client, listed).await.conflicts, 0);
}

async fn lossy_payloads_are_returned_as_text(backend: Backend) {
    let server = TestServer::start(backend).await;
    let mut client = server.client().await;
    let exact = r#"{"n":9007199254740993}"#;
    publish(&mut client, vec![event_with("t", "1", exact)]).await;
    let listed = list_all(&mut client, Default::default()).await;
    assert_eq!(payload_text(&listed[0]), exact);
}

async fn payload_keys_are_never_interpreted(backend: Backend) {
    let server = TestServer::start(backend).await;
    let mut client = server.client().await;
    // serde_json would parse the text in it, deeper than any client can decode.
    let key = "$serde_json::private::RawValue";
    let deep = format!("{}{}", "[".repeat(120), "]".repeat(120));
    publish(&mut client, vec![event_with("t", "1", &format!(r#"{{"{key}":"{deep}"}}"#))]).await;
    let listed = list_all(&mut client, Default::default()).await;
    let fields = [(key.to_owned(), text(&deep))].into();
    assert_eq!(listed[0].content, Some(Content::Payload(Struct { fields })));
}

async fn missing_payload_is_an_empty_object(backend: Backend) {
    let server = TestServer::start(backend).await;
    let mut client = server.client().await;
    publish(&mut client, vec![event("t", "1")]).await;
    let listed = list_all(&mut client, as_json()).await;
    assert_eq!(payload_text(&listed[0]), "{}");
    assert_eq!(publish(&mut client, vec![event_with("t", "1", "{}")]).await.conflicts, 0);
}

/// Payloads of the maximum size, much larger as a `Struct`: many small values, empty ones, and deep
/// ones.
fn largest() -> Vec<String> {
    let filled = |part: &str| {
        let (open, close) = (r#"{"x":["#, "0]}");
        let parts = ((1 << 20) - open.len() - close.len()) / part.len();
        format!("{open}{}{close}", part.repeat(parts))
    };
    let nested = format!("{}{},", "[".repeat(22), "]".repeat(22));
    ["1,", r#"{"":{}},"#, &nested].map(filled).to_vec()
}

async fn stored_payloads_fit_client_message_limits(backend: Backend) {
    let server = TestServer::start(backend).await;
    let mut client = server.client().await;
    // Names with four bytes per character.
    let name = "\u{1d11e}".repeat(63);
    let payloads = largest();
    let id = |number: usize| format!("{name}{number}");
    for (number, payload) in payloads.iter().enumerate() {
        let source = name.clone();
        let large = Event { source, ..event_with(&name, &id(number), payload) };
        publish(&mut client, vec![large]).await;
    }
    for format in [PayloadFormat::Struct, PayloadFormat::Json] {
        let check = |events: &[Event]| {
            let numbers = 0..payloads.len();
            let order = numbers.filter(|&number| events.iter().any(|e| e.event_id == id(number)));
            assert_eq!(order.count(), payloads.len(), "{format:?}");
            for event in events {
                let number = (0..payloads.len()).find(|&number| id(number) == event.event_id);
                let payload = &payloads[number.expect("one of them")];
                match &event.content {
                    Some(Content::PayloadJson(text)) => assert!(text == payload),
                    Some(Content::Payload(structure)) => {
                        assert!(!structure.fields.is_empty() && format == PayloadFormat::Struct);
                    }
                    None => panic!("no content"),
                }
            }
        };
        let mut request = ListEventsRequest {
            page_size: 1_000,
            payload_format: format.into(),
            ..Default::default()
        };
        let mut listed = Vec::new();
        loop {
            let page = client.list_events(request.clone()).await.expect("page").into_inner();
            assert!(page.encoded_len() < 4 << 20);
            assert!(!page.events.is_empty());
            listed.extend(page.events);
            if page.next_page_token.is_empty() {
                break;
            }
            request.page_token = page.next_page_token;
        }
        check(&listed);

        let key = |number| EventKey { topic: name.clone(), event_id: id(number) };
        let mut keys: Vec<EventKey> = (0..payloads.len()).map(key).collect();
        let mut found = Vec::new();
        while !keys.is_empty() {
            let request =
                BatchGetEventsRequest { keys: keys.clone(), payload_format: format.into() };
            let answer = client.batch_get_events(request).await.expect("found").into_inner();
            assert!(!answer.events.is_empty() && answer.missing.is_empty());
            keys.drain(..answer.events.len());
            found.extend(answer.events);
        }
        check(&found);

        let request = SubscribeRequest { payload_format: format.into(), ..Default::default() };
        let mut frames = client.subscribe(request).await.expect("feed").into_inner();
        let mut read = Vec::new();
        while read.len() < payloads.len() {
            let frame = frames.message().await.expect("can be read").expect("no end");
            if let Some(Frame::Events(batch)) = frame.frame {
                read.extend(batch.events);
            }
        }
        check(&read);
    }
    let escaped = "%F0%9D%84%9E".repeat(63);
    for (number, payload) in payloads.iter().enumerate() {
        let answer = get(&server, &format!("/events/{escaped}/{escaped}{number}")).await;
        assert_eq!(answer.status, 200);
        assert!(answer.body.contains(payload));
    }
}

async fn many_duplicates_of_a_large_payload_are_compared_in_one_batch(backend: Backend) {
    let server = TestServer::start(backend).await;
    let mut client = server.client().await;
    let members = |from: usize| (from..70_000).map(|key| format!(r#""{key:05}":0"#));
    let large = format!("{{{}}}", members(0).collect::<Vec<_>>().join(","));
    assert!(large.len() > 700_000);
    let small = |number: usize| format!(r#"{{"{number:05}":0}}"#);
    let repeats = |id: &str| (0..999).map(|number| event_with("t", id, &small(number))).collect();
    let reordered = format!("{{{},\"00000\":0}}", members(1).collect::<Vec<_>>().join(","));

    // As duplicates of the first event in the same request.
    let mut events: Vec<Event> = repeats("1");
    events.insert(0, event_with("t", "1", &large));
    let told = publish(&mut client, events).await;
    assert_eq!((told.unique_processed, told.conflicts), (1, 999));
    // As duplicates of a stored event, with keys in any order.
    let mut events: Vec<Event> = repeats("1");
    events.push(event_with("t", "1", &reordered));
    let told = publish(&mut client, events).await;
    assert_eq!((told.duplicate_dropped, told.conflicts), (1_000, 999));
}

async fn largest_payloads_are_returned_over_http(backend: Backend) {
    let server = TestServer::start(backend).await;
    let mut client = server.client().await;
    let payloads = largest();
    for (id, payload) in payloads.iter().enumerate() {
        publish(&mut client, vec![event_with("t", &id.to_string(), payload)]).await;
    }
    let mut next = Some("/events?limit=1000&order=oldest".to_owned());
    let mut left = payloads.iter();
    while let Some(path) = next {
        let page = get(&server, &path).await;
        assert_eq!(page.status, 200);
        let events = page.json().as_array().expect("events").len();
        let on_page = left.by_ref().take(events);
        on_page.for_each(|payload| assert!(page.body.contains(payload)));
        let link = page.header("link").and_then(|link| link.strip_prefix('<')?.split('>').next());
        next = link.map(str::to_owned);
        assert!(events > 0);
    }
    assert_eq!(left.count(), 0);

    let mut stream = TcpStream::connect(server.address).await.expect("connect");
    let request = "GET /events/stream?cursor=beginning HTTP/1.1\r\nHost: test\r\n\r\n";
    stream.write_all(request.as_bytes()).await.expect("send");
    let mut stream = BufReader::new(stream);
    let mut line = String::new();
    while line != "\r\n" {
        line.clear();
        stream.read_line(&mut line).await.expect("a head");
    }
    let mut body = Vec::new();
    for payload in &payloads {
        loop {
            let Some(end) = body.iter().position(|byte| *byte == b'\n') else {
                read_chunk(&mut stream, &mut body).await;
                continue;
            };
            let line: Vec<u8> = body.drain(..=end).collect();
            if line.starts_with(b"data: ") {
                assert!(String::from_utf8(line).expect("UTF-8").contains(payload));
                break;
            }
        }
    }
}

/// Reads one chunk of a body with chunked transfer encoding.
async fn read_chunk(stream: &mut BufReader<TcpStream>, body: &mut Vec<u8>) {
    let mut size = String::new();
    stream.read_line(&mut size).await.expect("a size");
    let size = usize::from_str_radix(size.trim(), 16).expect("a hexadecimal number");
    assert_ne!(size, 0, "a subscription has no end");
    let mut chunk = vec![0; size + 2];
    stream.read_exact(&mut chunk).await.expect("a chunk");
    body.extend_from_slice(&chunk[..size]);
}

async fn small_duplicates_of_large_payloads_are_committed_in_parts(backend: Backend) {
    use PublishStatus::{Accepted, Conflict};
    let server = TestServer::start(backend).await;
    let mut client = server.client().await;
    let large = format!(r#"{{"x":"{}"}}"#, "x".repeat(1_000_000));
    let ids: Vec<String> = (0..75).map(|id| id.to_string()).collect();
    for ids in ids.chunks(4) {
        let events = ids.iter().map(|id| event_with("t", id, &large)).collect();
        assert_eq!(publish(&mut client, events).await.unique_processed, ids.len() as i64);
    }
    // More than twice the comparison limit of a batch, between new events.
    let mut events: Vec<Event> = ids.iter().map(|id| event("t", id)).collect();
    events.insert(0, event("t", "before"));
    events.push(event("t", "behind"));
    let mut expected = vec![Conflict; events.len()];
    (expected[0], expected[76]) = (Accepted, Accepted);
    assert_eq!(verdicts(&mut client, events).await, expected);
    assert_eq!(counters(&mut client).await, [152, 77, 75, 75]);
}
