//! Rate limits of identities.

use std::time::{Duration, Instant};

use event_aggregator::proto::v1::{Event, PublishRequest, PublishResponse, PublishStreamRequest};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Code;
use tonic_types::StatusExt;

use super::{Guarded, entry, grant, refused};
use crate::harness::*;

#[tokio::test(flavor = "multi_thread")]
async fn rate_limit_rejects_calls_and_throttles_streams() {
    let with_rate = |rate: u32| {
        let limited = entry("shop", &grant("publish", "*"));
        let others = entry("root", &grant("publish admin", "*"));
        format!("{limited}events_per_second = {rate}\nburst = 1000\n{others}")
    };
    let guarded = Guarded::with(Backend::Sqlite, &with_rate(1)).await;
    let events = |from: usize, count: usize| -> Vec<Event> {
        (from..from + count).map(|n| event("orders", &n.to_string())).collect()
    };
    let mut shop = guarded.caller("shop").await;
    let publish = |events| PublishRequest { events, allow_partial: false };
    let taken: PublishResponse =
        shop.publish(publish(events(0, 1_000))).await.expect("the burst").into_inner();
    assert_eq!(taken.unique_processed, 1_000);
    let status =
        refused(shop.publish(publish(events(1_000, 1_000))).await, Code::ResourceExhausted);
    let wait =
        status.get_details_retry_info().and_then(|info| info.retry_delay).expect("RetryInfo");
    assert!(wait > Duration::ZERO && wait <= Duration::from_secs(1_000), "{wait:?}");
    let lines: Vec<String> = (0..1_000)
        .map(|n| format!(r#"{{"topic":"orders","event_id":"h{n}","source":"s"}}"#))
        .collect();
    let answer = guarded.post("shop", &format!("[{}]", lines.join(","))).await;
    assert_eq!(answer.status, 429);
    let seconds: u64 = answer.header("retry-after").expect("Retry-After").parse().expect("seconds");
    assert!((1..=1_000).contains(&seconds), "{seconds}");
    let mut root = guarded.caller("root").await;
    root.publish(publish(events(0, 1_000))).await.expect("without a rate");
    let metrics = guarded.get("root", "/metrics").await.body;
    let counted = r#"event_aggregator_rate_exceeded_events_total{identity="shop"} 2000"#;
    assert!(metrics.contains(counted), "{metrics}");

    // The throttled stream is answered later, without an error.
    let (requests, stream) = mpsc::channel(4);
    for from in [2_000, 3_000] {
        let request = PublishStreamRequest { events: events(from, 1_000), ..Default::default() };
        requests.send(request).await.expect("room");
    }
    drop(requests);
    let began = Instant::now();
    let mut answers =
        shop.publish_stream(ReceiverStream::new(stream)).await.expect("a stream").into_inner();
    guarded.rewrite(&with_rate(500));
    for _ in 0..2 {
        let answer = answers.message().await.expect("an answer").expect("one");
        assert_eq!(answer.unique_processed, 1_000);
    }
    // The first 1,000 are the burst; the others take two seconds.
    assert!(began.elapsed() >= Duration::from_millis(1_900), "{:?}", began.elapsed());
}

/// Small duplicates of large stored payloads are charged for the comparison, over every protocol
/// and whether or not the caller waits for the response.
async fn comparisons_are_charged_to_the_rate_limit(backend: Backend) {
    let limited = entry("shop", &grant("publish", "*"));
    let others = entry("root", &grant("publish admin", "*"));
    let text = format!("{limited}events_per_second = 1\nburst = 1000\n{others}");
    let guarded = Guarded::with(backend, &text).await;
    let publish = |events| PublishRequest { events, allow_partial: false };
    let (mut root, mut shop) = (guarded.caller("root").await, guarded.caller("shop").await);
    let payload = format!("{{\"x\":[{}\"\"]}}", "\"\",".repeat(340_000));
    let id = |n: usize| n.to_string();
    for n in 0..20 {
        root.publish(publish(vec![event_with("t", &id(n), &payload)])).await.expect("stored");
    }

    // In total it costs no more than what was received.
    for n in 0..3 {
        let other_form = format!(" {payload}");
        let taken = shop.publish(publish(vec![event_with("t", &id(n), &other_form)])).await;
        assert_eq!(taken.expect("within the burst").into_inner().duplicate_dropped, 1);
    }
    let repeats = (0..20).map(|n| event_with("t", &id(n), "{\"x\":[]}")).collect();
    let judged = shop.publish(publish(repeats)).await.expect("within the burst").into_inner();
    assert_eq!(judged.conflicts, 20);
    let status =
        refused(shop.publish(publish(vec![event("t", "new")])).await, Code::ResourceExhausted);
    let wait = status.get_details_retry_info().and_then(|info| info.retry_delay);
    assert!(wait.expect("RetryInfo") > Duration::from_secs(100), "{wait:?}");
    let line = r#"{"topic":"t","event_id":"new","source":"s"}"#;
    assert_eq!(guarded.post("shop", line).await.status, 429);
    root.publish(publish(vec![event("t", "other")])).await.expect("without a rate");
}

crate::conformance::on_both_stores!(comparisons_are_charged_to_the_rate_limit);
