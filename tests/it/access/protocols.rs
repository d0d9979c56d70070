//! The protocols respond alike: the same input over unary calls, streams and HTTP has the same results
//! and reasons.

use event_aggregator::proto::v1::{Event, PublishResult, PublishStatus, event::Content};
use serde_json::Value;
use tonic_types::StatusExt;

use super::*;
use crate::conformance::on_both_stores;

on_both_stores!(
    publishing_has_the_same_results_over_every_protocol,
    queries_have_the_same_reasons_over_every_protocol,
);

/// The result of one event or of a request: `accepted`, or a reason with the fields at fault.
type Verdict = (String, Vec<String>);

/// Events of one request: topic, event id and payload.
type Events = Vec<(&'static str, String, &'static str)>;

/// The way in.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Way {
    Unary,
    Stream,
    Http,
}

const WAYS: [Way; 3] = [Way::Unary, Way::Stream, Way::Http];

async fn publishing_has_the_same_results_over_every_protocol(backend: Backend) {
    let guarded = Guarded::start(backend).await;
    for way in WAYS {
        let before = rejected(&guarded).await;
        let id = |n: usize| format!("{way:?}-{n}");
        let one = |topic, n: usize, payload| vec![(topic, id(n), payload)];
        let many: Events =
            (0..1_001).map(|n| ("orders", format!("{way:?}-many-{n}"), "{}")).collect();
        for (case, events, expected) in [
            ("new", one("orders", 1, r#"{"a":1}"#), "accepted"),
            ("repeated", one("orders", 1, r#"{ "a" : 1.0 }"#), "duplicate"),
            ("changed", one("orders", 1, r#"{"a":2}"#), "conflict payload"),
            ("no topic", one("", 2, "{}"), "INVALID_REQUEST topic"),
            ("control character", one("a\u{7}b", 2, "{}"), "INVALID_REQUEST topic"),
            ("list as payload", one("orders", 2, "[]"), "INVALID_REQUEST payload"),
            ("damaged payload", one("orders", 2, r#"{"a":01}"#), "INVALID_REQUEST payload"),
            ("topic without a grant", one("bills", 2, "{}"), "PERMISSION_DENIED"),
            ("too many events", many, "REQUEST_TOO_LARGE"),
        ] {
            // A whole body that is not JSON is another error over HTTP.
            if way == Way::Http && case == "damaged payload" {
                continue;
            }
            let (verdict, fields) = publish(&guarded, way, &events).await;
            let verdict = [vec![verdict], fields].concat().join(" ");
            assert_eq!(verdict, expected, "{case} over {way:?}");
        }
        // An invalid event comes before one without a grant, and only these two are counted.
        let mixed: Events =
            vec![("orders", id(3), "{}"), ("bills", id(4), "{}"), ("orders", String::new(), "{}")];
        let (verdict, fields) = publish(&guarded, way, &mixed).await;
        match way {
            // Events of a stream are rejected one by one.
            Way::Stream => assert_eq!(verdict, "accepted"),
            Way::Unary | Way::Http => {
                assert_eq!((&*verdict, fields), ("INVALID_REQUEST", vec!["event_id".to_owned()]));
            }
        }
        let counted = rejected(&guarded).await - before;
        let (single, too_many, mixed) = (4, if way == Way::Stream { 1_001 } else { 0 }, 2);
        let single = if way == Way::Http { single } else { single + 1 };
        assert_eq!(counted, single + too_many + mixed, "{way:?}");
    }
}

async fn queries_have_the_same_reasons_over_every_protocol(backend: Backend) {
    let guarded = Guarded::start(backend).await;
    let mut grpc = guarded.caller("shop").await;
    let time = |seconds| Some(prost_types::Timestamp { seconds, nanos: 0 });
    let list = ListEventsRequest { topic: "orders".to_owned(), ..Default::default() };
    let cases = [
        ("/events", ListEventsRequest::default()),
        ("/events?topic=bills", ListEventsRequest { topic: "bills".to_owned(), ..list.clone() }),
        ("/events?topic=%07", ListEventsRequest { topic: "\u{7}".to_owned(), ..list.clone() }),
        (
            // Validation comes before authorization.
            "/events?topic=bills&source=%07",
            ListEventsRequest {
                topic: "bills".to_owned(),
                source: "\u{7}".to_owned(),
                ..list.clone()
            },
        ),
        (
            "/events?topic=orders&start_time=2026-01-02T00:00:00Z&end_time=2026-01-01T00:00:00Z",
            ListEventsRequest {
                start_time: time(1_767_312_000),
                end_time: time(1_767_225_600),
                ..list.clone()
            },
        ),
        (
            "/events?topic=orders&page_token=x",
            ListEventsRequest { page_token: "x".to_owned(), ..list.clone() },
        ),
    ];
    let mut reasons = Vec::new();
    for (path, request) in cases {
        let over_grpc = of_status(&grpc.list_events(request).await.expect_err("invalid"));
        assert_eq!(of_answer(&guarded.get("shop", path).await), over_grpc, "{path}");
        reasons.push(over_grpc.0);
    }
    assert_eq!(
        reasons,
        [
            "PERMISSION_DENIED",
            "PERMISSION_DENIED",
            "INVALID_REQUEST",
            "INVALID_REQUEST",
            "INVALID_REQUEST",
            "INVALID_PAGE_TOKEN",
        ]
    );

    let stats = GetStatsRequest { topic: "bills".to_owned(), ..Default::default() };
    let over_grpc = of_status(&grpc.get_stats(stats).await.expect_err("denied"));
    assert_eq!(of_answer(&guarded.get("shop", "/stats?topic=bills").await), over_grpc);

    for (path, topic, cursor) in [
        ("/events/stream?topic=bills", "bills", ""),
        ("/events/stream?topic=orders&cursor=x", "orders", "x"),
        ("/events/stream?topic=%07&cursor=x", "\u{7}", "x"),
    ] {
        let (topics, cursor) = (vec![topic.to_owned()], cursor.to_owned());
        let request = SubscribeRequest { topics, cursor, ..Default::default() };
        let (reason, _) = of_status(&grpc.subscribe(request).await.expect_err("invalid"));
        assert_eq!(of_answer(&guarded.get("shop", path).await).0, reason, "{path}");
    }
    let answer = guarded.get("no such identity", "/events").await;
    assert_eq!(of_answer(&answer).0, "UNAUTHENTICATED");
}

/// The number of rejected events.
async fn rejected(guarded: &Guarded) -> i64 {
    let mut root = guarded.caller("root").await;
    let stats = root.get_stats(GetStatsRequest::default()).await.expect("an answer").into_inner();
    stats.since_start.expect("counters of all topics").rejected
}

/// Publishes events in one request. The verdict is that of the first event, or of the request.
async fn publish(guarded: &Guarded, way: Way, events: &Events) -> Verdict {
    if way == Way::Http {
        let text = |(topic, event_id, payload): &(&str, String, &str)| {
            let names = json!({ "topic": topic, "event_id": event_id, "source": "s" }).to_string();
            format!(r#"{},"payload":{payload}}}"#, names.trim_end_matches('}'))
        };
        let body: Vec<String> = events.iter().map(text).collect();
        return of_answer(&guarded.post("shop", &format!("[{}]", body.join(","))).await);
    }
    let events: Vec<Event> = events
        .iter()
        .map(|(topic, event_id, payload)| Event {
            topic: (*topic).to_owned(),
            event_id: event_id.clone(),
            source: "s".to_owned(),
            content: Some(Content::PayloadJson((*payload).to_owned())),
            ..Event::default()
        })
        .collect();
    let mut client = guarded.caller("shop").await;
    if way == Way::Unary {
        let request = PublishRequest { events, allow_partial: false };
        return match client.publish(request).await {
            Ok(response) => of_result(&response.into_inner().results[0]),
            Err(status) => of_status(&status),
        };
    }
    let requests = tokio_stream::once(PublishStreamRequest { events, ..Default::default() });
    let mut responses = client.publish_stream(requests).await.expect("a stream").into_inner();
    let response = responses.message().await.expect("a response").expect("a response");
    of_result(&response.results[0])
}

fn of_result(result: &PublishResult) -> Verdict {
    match result.status() {
        PublishStatus::Rejected => {
            let error = result.error.clone().expect("an error");
            let details = tonic::codegen::Bytes::from(prost::Message::encode_to_vec(&error));
            of_status(&Status::with_details(Code::from(error.code), error.message, details))
        }
        status => {
            let name = status.as_str_name().trim_start_matches("PUBLISH_STATUS_");
            (name.to_lowercase(), result.differing_fields.clone())
        }
    }
}

fn of_status(status: &Status) -> Verdict {
    let fields = status.get_details_bad_request().map(|details| details.field_violations);
    let fields = fields.unwrap_or_default().into_iter().map(|violation| field(&violation.field));
    (reason(status), fields.filter(|name| !name.is_empty()).collect())
}

/// The result of an array of events, or the error.
fn of_answer(answer: &Response) -> Verdict {
    let json = answer.json();
    let texts = |value: &Value, key: &str| -> Vec<String> {
        let items = value.as_array().into_iter().flatten();
        items.map(|item| item[key].as_str().or(item.as_str()).expect("text").to_owned()).collect()
    };
    match json["reason"].as_str() {
        Some(reason) => {
            let fields = texts(&json["detail"], "field");
            (reason.to_owned(), fields.iter().map(|name| field(name)).collect())
        }
        None => {
            let result = &json["results"][0];
            let status = result["status"].as_str().expect("a status").to_owned();
            (status, texts(&result["differing_fields"], ""))
        }
    }
}

/// The last part of a path, by one name in all protocols.
fn field(path: &str) -> String {
    let name = path.rsplit('.').next().unwrap_or(path);
    match name {
        "payload_json" => "payload".to_owned(),
        "events" => String::new(),
        name => name.to_owned(),
    }
}
