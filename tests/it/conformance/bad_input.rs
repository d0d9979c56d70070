//! Invalid input over every protocol: it is rejected with the names of all invalid fields, nothing
//! is stored or counted, and the connection stays usable.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use event_aggregator::{
    cursor::Cursor,
    event::{Position, Timestamp as Time},
    page,
    proto::v1::{
        BatchGetEventsRequest, Event, EventKey, GetStatsRequest, ListEventsRequest, PayloadFormat,
        PublishRequest, PublishResponse, PublishStatus, PublishStreamRequest,
        PublishStreamResponse, SubscribeRequest, event::Content, subscribe_response::Frame,
    },
    store::{Filter, Mark, Place},
};
use prost::Message;
use prost_types::{ListValue, Struct, Timestamp, Value, value::Kind};
use serde_json::value::RawValue;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status, Streaming, codegen::http::uri::PathAndQuery, transport::Channel};
use tonic_prost::ProstCodec;
use tonic_types::StatusExt;

use crate::{
    fuzz::targets::{self, service::Raw},
    harness::*,
};

on_both_stores!(
    every_invalid_field_is_reported_over_every_protocol,
    undecodable_messages_are_rejected,
    malformed_calls_keep_connection_usable,
    reads_reject_invalid_arguments,
    forged_cursors_and_page_tokens_are_rejected,
    sql_in_names_is_not_executed,
    undecodable_event_is_rejected_alone,
);

/// An event with one field in its payload, as a `Struct`.
pub fn with_struct(key: &str, kind: Option<Kind>) -> Event {
    let fields = [(key.to_owned(), Value { kind })].into();
    Event { content: Some(Content::Payload(Struct { fields })), ..event("t", "1") }
}

/// An event with a timestamp.
pub fn at(seconds: i64, nanos: i32) -> Event {
    Event { timestamp: Some(Timestamp { seconds, nanos }), ..event("t", "1") }
}

fn nested_list(depth: usize) -> Kind {
    (0..depth).fold(Kind::NullValue(0), |kind, _| {
        Kind::ListValue(ListValue { values: vec![Value { kind: Some(kind) }] })
    })
}

/// Events, each with its invalid fields.
fn bad_events() -> Vec<(Event, Vec<&'static str>)> {
    let long = "x".repeat(256);
    let large = format!(r#"{{"x":"{}"}}"#, "x".repeat((1 << 20) - 7));
    let deep = format!(r#"{{"x":{}{}}}"#, "[".repeat(24), "]".repeat(24));
    let digits = format!(r#"{{"x":0.{}}}"#, "1".repeat(400));
    let text = |payload: &str| event_with("t", "1", payload);
    let number = |number| with_struct("n", Some(Kind::NumberValue(number)));
    let string = |string: &str| with_struct("s", Some(Kind::StringValue(string.to_owned())));
    let sent_by = |source: &str| Event { source: source.to_owned(), ..event("t", "1") };
    let all =
        Event { timestamp: at(0, -1).timestamp, source: "\n".into(), ..event_with("", "\0", "x") };
    let mut events = vec![
        (all, vec!["topic", "event_id", "source", "timestamp.nanos", "payload_json"]),
        (Event::default(), vec!["topic", "event_id", "source"]),
    ];
    for name in
        ["", &long, " t", "t\u{2003}", "a\0b", "a\u{85}b", "1\n", "\u{7f}", "\t", "\u{feff}\r"]
    {
        events.push((event(name, "1"), vec!["topic"]));
        events.push((event("t", name), vec!["event_id"]));
        events.push((sent_by(name), vec!["source"]));
    }
    for nanos in [-1, i32::MIN, 1_000_000_000, i32::MAX] {
        events.push((at(0, nanos), vec!["timestamp.nanos"]));
    }
    let years =
        [(-62_135_596_801, 999_999_999), (253_402_300_800, 0), (i64::MAX, 0), (i64::MIN, 0)];
    for (seconds, nanos) in years.into_iter().chain([(i64::MAX / 1_000_000, 999_999_999)]) {
        events.push((at(seconds, nanos), vec!["timestamp"]));
    }
    for payload in [
        "",
        " ",
        "[]",
        "null",
        "1",
        "\"x\"",
        "\u{feff}{}",
        "{\"a\":1",
        "{\"a\":1}{}",
        "{'a':1}",
        "{\"a\":01}",
        "{\"a\":+1}",
        "{\"a\":.5}",
        "{\"a\":1.}",
        "{\"a\":NaN}",
        "{\"a\":Infinity}",
        "{\"a\":1,}",
        "{\"a\":1} // x",
        "{\"a\":\"\n\"}",
        "{\"a\":\"\\x\"}",
        "{a:1}",
        "{\"a\":1e400}",
        "{\"a\":-1e309}",
        "{\"a\":1e-400}",
        "{\"a\":0e-20000}",
        "{\"a\":0e-9223372036854775808}",
        "{\"a\":0e9223372036854775807}",
        &digits,
        "{\"a\":\"\\u0000\"}",
        "{\"a\":\"\0\"}",
        "{\"\\u0000\":1}",
        "{\"a\":\"\\ud800\"}",
        "{\"a\":\"\\udc00\\ud800\"}",
        "{\"\\udfff\":1}",
        &deep,
        &large,
    ] {
        events.push((text(payload), vec!["payload_json"]));
    }
    events.extend(
        [
            number(f64::NAN),
            number(f64::INFINITY),
            number(f64::NEG_INFINITY),
            number(9_007_199_254_740_994.0),
            number(1e300),
            string("a\0b"),
            string(&large),
            with_struct("\0", Some(Kind::NullValue(0))),
            with_struct("none", None),
            with_struct("deep", Some(nested_list(24))),
            with_struct("deeper", Some(nested_list(60))),
        ]
        .map(|event| (event, vec!["payload"])),
    );
    events
}

/// The equivalent HTTP body, if there is one, and the expected status.
fn as_body(event: &Event) -> Option<(String, u16)> {
    let text = |text: &str| serde_json::to_string(text).expect("text");
    let payload = match &event.content {
        None => "{}",
        Some(Content::PayloadJson(text)) => text,
        Some(Content::Payload(_)) => return None,
    };
    if event.timestamp.is_some() {
        return None;
    }
    let (topic, id, source) = (text(&event.topic), text(&event.event_id), text(&event.source));
    let body =
        format!(r#"{{"topic":{topic},"event_id":{id},"source":{source},"payload":{payload}}}"#);
    // Invalid JSON in a payload makes the whole body invalid.
    let status = if serde_json::from_str::<&RawValue>(payload).is_ok() { 422 } else { 400 };
    Some((body, status))
}

/// An error in a response, as a status.
fn as_status(error: &tonic_types::Status) -> Status {
    let details = error.encode_to_vec().into();
    Status::with_details(Code::from(error.code), &error.message, details)
}

/// The violations of an error, by field.
fn told(status: &Status) -> Vec<(String, String)> {
    let details = status.get_details_bad_request().expect("BadRequest");
    let violations = details.field_violations.into_iter();
    violations
        .map(|violation| {
            let field = violation.field.rsplit_once("].").map_or(&*violation.field, |(_, f)| f);
            (field.to_owned(), violation.description)
        })
        .collect()
}

/// An open PublishStream.
struct Stream {
    requests: mpsc::Sender<PublishStreamRequest>,
    responses: Streaming<PublishStreamResponse>,
}

impl Stream {
    async fn open(client: &mut Client) -> Self {
        let (requests, outgoing) = mpsc::channel(1);
        let responses = client.publish_stream(ReceiverStream::new(outgoing)).await.expect("stream");
        Self { requests, responses: responses.into_inner() }
    }

    async fn send(&mut self, events: Vec<Event>) -> PublishStreamResponse {
        let request = PublishStreamRequest { events, ..Default::default() };
        self.requests.send(request).await.expect("open");
        self.responses.message().await.expect("an answer").expect("no end")
    }
}

async fn every_invalid_field_is_reported_over_every_protocol(backend: Backend) {
    let server = TestServer::start(backend).await;
    let mut client = server.client().await;
    let mut stream = Stream::open(&mut client.clone()).await;
    let (mut stored, mut rejected) = (0, 0);
    for (number, (bad, fields)) in bad_events().into_iter().enumerate() {
        let shown = format!("{bad:?}").chars().take(200).collect::<String>();
        let good = |way: &str| event("good", &format!("{number}-{way}"));

        // All or nothing.
        let both = vec![good("unary"), bad.clone()];
        let status = try_publish(&mut client, both).await.expect_err(&shown);
        let named = fields.iter().map(|field| format!("events[1].{field}"));
        assert_eq!(fields_at_fault(&status), named.collect::<Vec<_>>(), "{shown}");
        assert_eq!(reason(&status), "INVALID_REQUEST");

        // Event by event, in one call and on a stream that continues.
        let events = vec![bad.clone(), good("unary")];
        let request = PublishRequest { events, allow_partial: true };
        let unary = client.publish(request).await.expect("the rest").into_inner();
        let streamed = stream.send(vec![bad.clone(), good("stream")]).await;
        stored += 2;
        rejected += 3;
        for results in [unary.results, streamed.results] {
            assert_eq!(results[1].status(), PublishStatus::Accepted, "{shown}");
            assert_eq!(results[0].status(), PublishStatus::Rejected, "{shown}");
            let error = as_status(results[0].error.as_ref().expect("an error"));
            assert_eq!(fields_at_fault(&error), fields, "{shown}");
            assert_eq!((told(&error), reason(&error)), (told(&status), reason(&status)));
        }

        if let Some((body, expected)) = as_body(&bad) {
            let answer = post(&server, &body).await;
            assert_eq!(answer.status, expected, "{shown}: {}", answer.body);
            if expected == 422 {
                rejected += 1;
                let detail = answer.json()["detail"].as_array().expect("detail").clone();
                let text = |fault: &serde_json::Value, of: &str| {
                    fault[of].as_str().expect("text").replace("payload_json", "payload")
                };
                let said =
                    detail.iter().map(|fault| (text(fault, "field"), text(fault, "message")));
                let told = told(&status).into_iter();
                let told =
                    told.map(|(field, fault)| (field.replace("payload_json", "payload"), fault));
                assert_eq!(said.collect::<Vec<_>>(), told.collect::<Vec<_>>(), "{shown}");
            }
        }
        assert_eq!(counters(&mut client).await, [stored, stored, 0, 0], "{shown}");
    }
    let since_start = stats(&mut client).await.since_start.expect("since_start");
    assert_eq!(since_start.rejected, rejected);
    assert_eq!(server.stored().await, stored);
}

const PUBLISH: &str = "/event_aggregator.v1.EventAggregatorService/Publish";
const LIST: &str = "/event_aggregator.v1.EventAggregatorService/ListEvents";

/// Makes a call with arbitrary message bytes and headers.
async fn send(
    channel: &Channel,
    path: &'static str,
    message: Vec<u8>,
    headers: &[(&'static str, String)],
) -> Status {
    let mut client = tonic::client::Grpc::new(channel.clone());
    client.ready().await.expect("connected");
    let codec: ProstCodec<Raw, PublishResponse> = ProstCodec::default();
    let mut request = tonic::Request::new(Raw(message));
    for (name, value) in headers {
        request.metadata_mut().insert(*name, value.parse().expect("a value"));
    }
    let path = PathAndQuery::from_static(path);
    client.unary(request, path, codec).await.expect_err("refused")
}

async fn undecodable_messages_are_rejected(backend: Backend) {
    let server = TestServer::start(backend).await;
    let channel = channel_to(server.address).await;
    let whole =
        PublishRequest { events: vec![event("t", "1")], allow_partial: true }.encode_to_vec();
    let mut cut: Vec<Vec<u8>> = (1..whole.len()).map(|length| whole[..length].to_vec()).collect();
    // Without its last field the message is valid again.
    cut.retain(|message| message.len() != whole.len() - 2);
    let others = [
        &b"\x08\x01"[..],                                // a number where an event should be
        b"\x0a\x02\x08\x01",                             // a number where a topic should be
        b"\x0a\xff\xff\xff\x7f",                         // longer than everything
        b"\x0b",                                         // a group without an end
        b"\x0c",                                         // an end without a group
        b"\x00\x00",                                     // the field number zero
        b"\x0f",                                         // an unknown wire type
        b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff", // a tag without an end
    ];
    for message in cut.into_iter().chain(others.map(<[u8]>::to_vec)) {
        let status = send(&channel, PUBLISH, message.clone(), &[]).await;
        assert_eq!(fields_at_fault(&status), ["message"], "{message:?}");
    }
    // A topic that is not UTF-8 is reported by event and field.
    let status = send(&channel, PUBLISH, b"\x0a\x03\x0a\x01\xfc".to_vec(), &[]).await;
    let fields = ["topic", "event_id", "source"].map(|field| format!("events[0].{field}"));
    assert_eq!(fields_at_fault(&status), fields);
    assert!(status.message().contains("must be UTF-8"), "{}", status.message());
    let status = send(&channel, LIST, b"\x0a\x01\xfc".to_vec(), &[]).await;
    assert_eq!(fields_at_fault(&status), ["message"]);

    let mut client = Client::new(channel);
    let status = try_publish(&mut client, vec![Event::default(); 5_000]).await.expect_err("items");
    assert_eq!(fields_at_fault(&status), ["message"]);
    assert_eq!(reason(&status), "REQUEST_TOO_LARGE");
    assert_eq!(publish(&mut client, vec![event("t", "1")]).await.unique_processed, 1);
    assert_eq!(server.stored().await, 1);
}

/// Messages with events, each with the undecodable field and the reason.
fn unreadable_events() -> [(Vec<u8>, &'static str, &'static str); 10] {
    let structure = |bytes: &[u8]| targets::structure::event_with(bytes);
    let topic = [b"\x0a\x01\xfc", &event("", "1").encode_to_vec()[..]].concat();
    let large = format!(r#"{{"a":"{}"}}"#, "x".repeat(5_000));
    let text = |payload: &str| event_with("t", "1", payload).encode_to_vec();
    let again = |event: Vec<u8>, more: &[u8]| [&*event, more].concat();
    let one = b"\x0a\x07\x0a\x01a\x12\x02\x20\x01";
    [
        (again(structure(one), b"\x2a\x00"), "payload", "more than once"),
        (again(text("{}"), b"\x2a\x00"), "payload", "more than once"),
        (again(structure(one), b"\x32\x02{}"), "payload_json", "more than once"),
        (again(text(&large), b"\x32\x02{}"), "payload_json", "more than once"),
        (topic, "topic", "must be UTF-8"),
        (structure(b"\x08\x01"), "payload", "another type"),
        (structure(b"\x0a\x06\x08\x07\x12\x02\x20\x01"), "payload", "another type"),
        (structure(b"\x0a\x07\x0a\x01\xfc\x12\x02\x20\x01"), "payload", "UTF-8"),
        (structure(b"\x0a\x09\x0a\x01a\x12\x04\x2a\x00\x2a\x00"), "payload", "parts"),
        (structure(b"\x0a\xff"), "payload", "decoded"),
    ]
}

async fn undecodable_event_is_rejected_alone(backend: Backend) {
    use PublishStatus::{Accepted, Rejected};
    let server = TestServer::start(backend).await;
    let channel = channel_to(server.address).await;
    let mut streaming = tonic::client::Grpc::new(channel.clone());
    streaming.ready().await.expect("connected");
    let (requests, outgoing) = mpsc::channel(1);
    let codec: ProstCodec<Raw, PublishStreamResponse> = ProstCodec::default();
    let path =
        PathAndQuery::from_static("/event_aggregator.v1.EventAggregatorService/PublishStream");
    let outgoing = tonic::Request::new(ReceiverStream::new(outgoing));
    let mut responses =
        streaming.streaming(outgoing, path, codec).await.expect("stream").into_inner();
    for (number, (bad, field, fault)) in unreadable_events().into_iter().enumerate() {
        let good = event("good", &number.to_string()).encode_to_vec();
        let mut message = Vec::new();
        for event in [&bad, &good] {
            prost::encoding::bytes::encode(1, event, &mut message);
        }
        let status = send(&channel, PUBLISH, message.clone(), &[]).await;
        assert_eq!(fields_at_fault(&status), [format!("events[0].{field}")]);
        assert!(status.message().contains(fault), "{}", status.message());

        requests.send(Raw(message)).await.expect("open");
        let response = responses.message().await.expect("an answer").expect("no end");
        let verdicts = response.results.iter().map(|result| result.status());
        assert_eq!(verdicts.collect::<Vec<_>>(), [Rejected, Accepted]);
        let error = as_status(response.results[0].error.as_ref().expect("an error"));
        assert_eq!(fields_at_fault(&error), [field]);
    }
    assert_eq!(server.stored().await, unreadable_events().len() as i64);
}

async fn malformed_calls_keep_connection_usable(backend: Backend) {
    let server = TestServer::start(backend).await;
    let channel = channel_to(server.address).await;
    let mut client = Client::new(channel.clone());
    let request = PublishRequest { events: vec![event("t", "1")], allow_partial: false };
    let message = request.encode_to_vec();
    let header = |name, value: &str| vec![(name, value.to_owned())];
    let nowhere = "/event_aggregator.v1.EventAggregatorService/Drop";
    let large = |bytes: usize| {
        let payload = "x".repeat(bytes);
        PublishRequest { events: vec![event_with("t", "1", &payload)], ..Default::default() }
            .encode_to_vec()
    };
    for (path, message, headers, code) in [
        (nowhere, message.clone(), vec![], Code::Unimplemented),
        ("/nothing.v1.Nothing/Publish", message.clone(), vec![], Code::Unimplemented),
        (PUBLISH, message.clone(), header("grpc-encoding", "gzip"), Code::Unimplemented),
        (PUBLISH, message.clone(), header("grpc-encoding", "brotli9"), Code::Unimplemented),
        (PUBLISH, large(5 << 20), vec![], Code::InvalidArgument),
        (PUBLISH, large((8 << 20) - 100), vec![], Code::InvalidArgument),
        (PUBLISH, large(8 << 20), vec![], Code::OutOfRange),
    ] {
        let shown = format!("{path} {headers:?} {}", message.len());
        let status = send(&channel, path, message, &headers).await;
        assert_eq!(status.code(), code, "{shown}: {status:?}");
        if code == Code::InvalidArgument {
            assert_eq!(reason(&status), "REQUEST_TOO_LARGE");
        }
        assert_eq!(counters(&mut client).await, [0; 4], "{shown}");
    }
    let status = send(&channel, PUBLISH, message, &[("x-large", "x".repeat(40 << 10))]).await;
    assert_ne!(status.code(), Code::Ok);
    assert_eq!(publish(&mut client, request.events).await.unique_processed, 1);
    assert_eq!(server.stored().await, 1);
}

async fn reads_reject_invalid_arguments(backend: Backend) {
    let server = TestServer::start(backend).await;
    let mut client = server.client().await;
    let time = |seconds| Some(Timestamp { seconds, nanos: 0 });
    let list = ListEventsRequest::default;
    for (request, fields) in [
        (ListEventsRequest { page_size: -1, ..list() }, vec!["page_size"]),
        (ListEventsRequest { page_size: i32::MIN, ..list() }, vec!["page_size"]),
        (ListEventsRequest { topic: "a\0".into(), ..list() }, vec!["topic"]),
        (
            ListEventsRequest { source: " ".into(), start_time: time(i64::MAX), ..list() },
            vec!["source", "start_time"],
        ),
        (ListEventsRequest { start_time: time(2), end_time: time(1), ..list() }, vec!["end_time"]),
        (
            ListEventsRequest { order: 9, payload_format: 9, ..list() },
            vec!["order", "payload_format"],
        ),
        (ListEventsRequest { page_token: "x".into(), ..list() }, vec!["page_token"]),
    ] {
        let status = client.list_events(request).await.expect_err("bad");
        assert_eq!(fields_at_fault(&status), fields);
    }
    for page_size in [0, 1, 1_001, i32::MAX] {
        let request = ListEventsRequest { page_size, ..list() };
        assert!(client.list_events(request).await.expect("a page").into_inner().events.is_empty());
    }
    let request = GetStatsRequest { topic: "\n".into(), max_topics: -1 };
    let status = client.get_stats(request).await.expect_err("bad");
    assert_eq!(fields_at_fault(&status), ["topic", "max_topics"]);

    let key = |topic: &str, id: &str| EventKey { topic: topic.into(), event_id: id.into() };
    for (keys, fields) in [
        (vec![], vec!["keys"]),
        (vec![key("t", "1"); 1_001], vec!["keys"]),
        (vec![key("t", "1"), key("", "\0")], vec!["keys[1].topic", "keys[1].event_id"]),
    ] {
        let request = BatchGetEventsRequest { keys, ..Default::default() };
        let status = client.batch_get_events(request).await.expect_err("bad");
        assert_eq!(fields_at_fault(&status), fields);
    }
    for path in ["/events/%FF/1", "/events?topic=%00", "/events?limit=-1", "/stats?max_topics=1e9"]
    {
        let answer = get(&server, path).await;
        assert!([400, 422].contains(&answer.status), "{path}: {}", answer.body);
        assert!(answer.json()["error"].is_string(), "{path}");
    }
}

async fn forged_cursors_and_page_tokens_are_rejected(backend: Backend) {
    let server = TestServer::start(backend).await;
    let other = TestServer::start(backend).await;
    let mut client = server.client().await;
    let events = || (0..3).map(|id| event("t", &id.to_string())).collect();
    publish(&mut client, events()).await;
    publish(&mut other.client().await, events()).await;
    let request = ListEventsRequest { page_size: 1, ..Default::default() };
    let page = client.list_events(request.clone()).await.expect("page").into_inner();
    let (token, cursor) = (page.next_page_token, page.events[0].cursor.clone());
    let elsewhere = other.client().await.list_events(request.clone()).await.expect("page");
    let elsewhere = elsewhere.into_inner();

    // Forged cursors and tokens with a valid checksum.
    let sealed = URL_SAFE_NO_PAD.decode(&token).expect("base64");
    let store = uuid::Uuid::from_slice(&sealed[2..18]).expect("an id");
    let lanes = match backend {
        Backend::Sqlite => 1,
        Backend::Postgres => 4,
    };
    let place = |received_at, lane, seq| Place {
        received_at: Time::from_micros(received_at).expect("in range"),
        position: Position { lane, seq },
    };
    let last_time = 253_402_300_799_999_999;
    let nowhere = [i64::MIN, -1, i64::MAX].map(|seq| place(0, 0, seq));
    let heads = vec![Mark::default(); lanes];
    let page_at = |place| page::encode(store, &Filter::default(), place, &heads);
    let cursor_at = |place| Cursor::Event { place, heads: heads.clone() }.encode(store);

    let mut tokens =
        vec!["x".to_owned(), "ü".to_owned(), cursor.clone(), elsewhere.next_page_token];
    tokens.extend([format!("{token}A"), token[1..].to_owned(), "A".repeat(100_000)]);
    tokens.extend(nowhere.map(page_at));
    for page_token in tokens {
        let request = ListEventsRequest { page_token: page_token.clone(), ..request.clone() };
        let status = client.list_events(request).await.expect_err("refused");
        assert_eq!(fields_at_fault(&status), ["page_token"]);
        assert_eq!(reason(&status), "INVALID_PAGE_TOKEN");
        if page_token.len() < 1_000 {
            let token = page_token.replace('ü', "%C3%BC");
            assert_eq!(get(&server, &format!("/events?page_token={token}")).await.status, 422);
        }
    }
    let others =
        ListEventsRequest { topic: "t".into(), page_token: token.clone(), ..request.clone() };
    let status = client.list_events(others).await.expect_err("another filter");
    assert_eq!(reason(&status), "INVALID_PAGE_TOKEN");

    let mut cursors = vec!["x".to_owned(), token, elsewhere.events[0].cursor.clone()];
    let too_long = Cursor::Feed(vec![Mark::default(); lanes + 1]).encode(store);
    cursors.extend([too_long, cursor[1..].to_owned()]);
    cursors.extend(nowhere.map(cursor_at));
    cursors.push(cursor_at(place(0, lanes as u16, 1)));
    for cursor in cursors {
        let request = SubscribeRequest { cursor: cursor.clone(), ..Default::default() };
        let status = client.subscribe(request).await.expect_err("refused");
        assert_eq!(fields_at_fault(&status), ["cursor"]);
        assert_eq!(reason(&status), "INVALID_CURSOR");
        assert_eq!(get(&server, &format!("/events/stream?cursor={cursor}")).await.status, 422);
    }

    // Positions beyond what the store has.
    let ahead = vec![Mark { seq: 1_000, received_at: None }; lanes];
    for cursor in [Cursor::Feed(ahead).encode(store), cursor_at(place(0, 0, 1_000))] {
        let request = SubscribeRequest { cursor: cursor.clone(), ..Default::default() };
        let status = client.subscribe(request).await.expect_err("refused");
        assert_eq!(status.code(), Code::FailedPrecondition);
        assert_eq!(reason(&status), "STORE_RESTORED");
        assert_eq!(get(&server, &format!("/events/stream?cursor={cursor}")).await.status, 410);
    }

    // Positions without an event are valid.
    for (micros, lane, seq) in
        [(last_time, 0, 0), (last_time, u16::MAX, 5), (0, 40_000, i64::MAX - 1)]
    {
        let page_token = page_at(place(micros, lane, seq));
        let request = ListEventsRequest { page_token, ..request.clone() };
        client.list_events(request).await.expect("a page");
    }
    client.subscribe(SubscribeRequest { cursor, ..Default::default() }).await.expect("a feed");
}

async fn sql_in_names_is_not_executed(backend: Backend) {
    let server = TestServer::start(backend).await;
    let mut client = server.client().await;
    let name = r#"'; DROP TABLE processed_events; -- " $1 ?1 %s \' {} ["#;
    let payload = format!(r#"{{"x":{}}}"#, serde_json::to_string(name).expect("text"));
    let sent = Event { source: name.to_owned(), ..event_with(name, name, &payload) };
    publish(&mut client, vec![sent.clone(), event("t", "1")]).await;
    assert_eq!(publish(&mut client, vec![sent]).await.duplicate_dropped, 1);

    let payload_format = PayloadFormat::Json.into();
    let (topic, source) = (name.to_owned(), name.to_owned());
    let request = ListEventsRequest { topic, source, payload_format, ..Default::default() };
    let listed = list_all(&mut client, request).await;
    assert_eq!((ids(&listed), payload_text(&listed[0])), (vec![name], &*payload));
    let keys = vec![EventKey { topic: name.into(), event_id: name.into() }];
    let request = BatchGetEventsRequest { keys, payload_format };
    let found = client.batch_get_events(request).await.expect("found").into_inner();
    assert_eq!(ids(&found.events), [name]);
    let request = GetStatsRequest { topic: name.to_owned(), ..Default::default() };
    let stats = client.get_stats(request).await.expect("stats").into_inner();
    assert_eq!((stats.received, stats.unique_processed), (2, 1));
    let request = SubscribeRequest { topics: vec![name.to_owned()], ..Default::default() };
    let mut frames = client.subscribe(request).await.expect("feed").into_inner();
    let frame = frames.message().await.expect("a frame").expect("no end").frame;
    let Some(Frame::Events(batch)) = frame else { panic!("{frame:?}") };
    assert_eq!(ids(&batch.events), [name]);
    assert_eq!(server.stored().await, 2);
}
