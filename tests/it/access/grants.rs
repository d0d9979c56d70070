//! Grants of verbs on topics, over every protocol.

use event_aggregator::proto::v1::{
    BatchGetEventsRequest, EventKey, GetStatsRequest, ListEventsRequest, PublishRequest,
    PublishStatus, PublishStreamRequest, SubscribeRequest, SubscribeResponse,
    subscribe_response::Frame,
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Streaming};

use super::{Guarded, refused, request};
use crate::{conformance::on_both_stores, harness::*};

on_both_stores!(
    reading_is_granted_by_topic,
    publishing_is_granted_by_topic,
    tokens_and_cursors_do_not_bypass_grants,
);

async fn publishing_is_granted_by_topic(backend: Backend) {
    let guarded = Guarded::start(backend).await;
    let mut shop = guarded.caller("shop").await;
    let taken = shop.publish(request(&["orders", "shop.eu"], false)).await.expect("granted");
    assert_eq!(taken.into_inner().unique_processed, 2);

    let status =
        refused(shop.publish(request(&["orders", "other"], false)).await, Code::PermissionDenied);
    assert_eq!(status.message(), "permission denied: no grant to publish topic other");
    refused(shop.publish(request(&["ordersx"], false)).await, Code::PermissionDenied);
    let mut reader = guarded.caller("reader").await;
    refused(reader.publish(request(&["orders"], false)).await, Code::PermissionDenied);

    let partial = shop.publish(request(&["other", "shop.b", ""], true)).await.expect("partly");
    let partial = partial.into_inner();
    let codes: Vec<_> =
        partial.results.iter().map(|result| result.error.as_ref().map(|e| e.code)).collect();
    let (denied, invalid) = (Code::PermissionDenied as i32, Code::InvalidArgument as i32);
    assert_eq!(codes, [Some(denied), None, Some(invalid)]);
    assert_eq!((partial.unique_processed, partial.rejected), (1, 2));

    // The stream continues.
    let (requests, stream) = mpsc::channel(4);
    for topics in [&["other", "shop.c"][..], &["shop.d"]] {
        let PublishRequest { events, .. } = request(topics, true);
        requests.send(PublishStreamRequest { events, ..Default::default() }).await.expect("room");
    }
    drop(requests);
    let mut answers =
        shop.publish_stream(ReceiverStream::new(stream)).await.expect("a stream").into_inner();
    let first = answers.message().await.expect("an answer").expect("one");
    assert_eq!(first.results[0].status(), PublishStatus::Rejected);
    assert_eq!(first.results[0].error.as_ref().map(|error| error.code), Some(denied));
    assert_eq!(first.results[1].status(), PublishStatus::Accepted);
    let second = answers.message().await.expect("an answer").expect("one");
    assert_eq!(second.unique_processed, 1);
    assert!(answers.message().await.expect("an end").is_none());

    let body = |topic: &str| format!(r#"{{"topic":"{topic}","event_id":"h","source":"s"}}"#);
    assert_eq!(guarded.post("shop", &body("shop.e")).await.status, 200);
    let denied = guarded.post("shop", &body("other")).await;
    assert_eq!(denied.status, 403);
    assert_eq!(denied.json()["error"], "permission denied: no grant to publish topic other");
    let both = format!("[{},{}]", body("shop.f"), body("other"));
    assert_eq!(guarded.post("shop", &both).await.status, 403);
    assert_eq!(guarded.server.stored().await, 6);
}

async fn reading_is_granted_by_topic(backend: Backend) {
    let guarded = Guarded::start(backend).await;
    let mut root = guarded.caller("root").await;
    root.publish(request(&["orders", "shop.eu", "other"], false)).await.expect("granted");
    let mut shop = guarded.caller("shop").await;
    let mut reader = guarded.caller("reader").await;
    let mut nobody = guarded.caller("nobody").await;

    for (topic, shop_may) in [("orders", true), ("shop.eu", true), ("other", false), ("", false)] {
        for (caller, may) in [(&mut shop, shop_may), (&mut reader, true), (&mut nobody, false)] {
            let topic = topic.to_owned();
            let topics: Vec<_> =
                Some(topic.clone()).filter(|topic| !topic.is_empty()).into_iter().collect();
            let list = ListEventsRequest { topic: topic.clone(), ..Default::default() };
            let stats = GetStatsRequest { topic, ..Default::default() };
            let subscribe = SubscribeRequest { topics, ..Default::default() };
            if may {
                caller.list_events(list).await.expect("granted");
                caller.get_stats(stats).await.expect("granted");
                caller.subscribe(subscribe).await.expect("granted");
            } else {
                refused(caller.list_events(list).await, Code::PermissionDenied);
                refused(caller.get_stats(stats).await, Code::PermissionDenied);
                refused(caller.subscribe(subscribe).await, Code::PermissionDenied);
            }
        }
    }
    let key = |topic: &str| EventKey { topic: topic.to_owned(), event_id: "0".to_owned() };
    let keys = |keys: Vec<EventKey>| BatchGetEventsRequest { keys, ..Default::default() };
    let found = shop.batch_get_events(keys(vec![key("orders")])).await.expect("granted");
    assert_eq!(found.into_inner().events.len(), 1);
    let both = keys(vec![key("orders"), key("other")]);
    refused(shop.batch_get_events(both).await, Code::PermissionDenied);
    let empty = shop.batch_get_events(keys(Vec::new())).await.expect_err("empty");
    assert_eq!(empty.code(), Code::InvalidArgument);

    // Process counters cover all topics.
    let orders = GetStatsRequest { topic: "orders".to_owned(), ..Default::default() };
    let stats = shop.get_stats(orders.clone()).await.expect("granted").into_inner();
    assert_eq!((stats.received, stats.since_start), (1, None));
    assert!(reader.get_stats(orders).await.expect("granted").into_inner().since_start.is_some());

    for (path, shop_may) in [
        ("/events?topic=orders", true),
        ("/events?topic=other", false),
        ("/events", false),
        ("/events/orders/0", true),
        ("/events/other/2", false),
        ("/events/other/none", false),
        ("/stats?topic=shop.eu", true),
        ("/stats?topic=other", false),
        ("/stats", false),
        ("/events/stream?topic=other", false),
        ("/events/stream?topic=orders&topic=other", false),
        ("/events/stream", false),
    ] {
        let answer = guarded.get("shop", path).await;
        assert_eq!(answer.status, if shop_may { 200 } else { 403 }, "{path}");
        assert_eq!(guarded.get("nobody", path).await.status, 403, "{path}");
    }
    assert!(guarded.get("shop", "/stats?topic=orders").await.json().get("since_start").is_none());
    for (name, status) in [("root", 200), ("reader", 403), ("shop", 403)] {
        assert_eq!(guarded.get(name, "/metrics").await.status, status, "{name}");
    }
}

async fn tokens_and_cursors_do_not_bypass_grants(backend: Backend) {
    let guarded = Guarded::start(backend).await;
    let mut root = guarded.caller("root").await;
    root.publish(request(&["other", "other", "other", "orders"], false)).await.expect("granted");
    let listing = |topic: &str, page_token: &str| ListEventsRequest {
        topic: topic.to_owned(),
        page_size: 1,
        page_token: page_token.to_owned(),
        ..Default::default()
    };
    let page = root.list_events(listing("other", "")).await.expect("granted").into_inner();
    let token = page.next_page_token;
    assert!(!token.is_empty());
    let cursor = page.events[0].cursor.clone();

    let mut shop = guarded.caller("shop").await;
    refused(shop.list_events(listing("other", &token)).await, Code::PermissionDenied);
    let status = shop.list_events(listing("orders", &token)).await.expect_err("another listing");
    assert_eq!(fields_at_fault(&status), ["page_token"]);
    let path = format!("/events?topic=other&limit=1&page_token={token}");
    assert_eq!(guarded.get("shop", &path).await.status, 403);

    let subscription = |topics: &[&str], cursor: &str| SubscribeRequest {
        topics: topics.iter().map(|topic| (*topic).to_owned()).collect(),
        cursor: cursor.to_owned(),
        ..Default::default()
    };
    for cursor in [&*cursor, "beginning"] {
        refused(shop.subscribe(subscription(&["other"], cursor)).await, Code::PermissionDenied);
        refused(shop.subscribe(subscription(&[], cursor)).await, Code::PermissionDenied);
        let frames = shop.subscribe(subscription(&["orders"], cursor)).await.expect("granted");
        let topics = topics_until_caught_up(frames.into_inner()).await;
        assert!(topics.iter().all(|topic| topic == "orders"), "{topics:?}");
    }
    for path in [
        format!("/events/stream?cursor={cursor}"),
        format!("/events/stream?topic=other&cursor={cursor}"),
    ] {
        assert_eq!(guarded.get("shop", &path).await.status, 403);
    }
}

async fn topics_until_caught_up(mut frames: Streaming<SubscribeResponse>) -> Vec<String> {
    let mut topics = Vec::new();
    loop {
        match frames.message().await.expect("a frame").and_then(|response| response.frame) {
            Some(Frame::Events(batch)) => {
                topics.extend(batch.events.into_iter().map(|event| event.topic))
            }
            Some(Frame::CaughtUp(_)) => return topics,
            _ => (),
        }
    }
}
