//! PostgreSQL connections that break at the worst moment: each event is counted once and has the
//! right verdict.

use std::sync::Arc;

use event_aggregator::{
    config::Database,
    proto::v1::{GetStatsRequest, PublishStatus::*, PublishStreamRequest},
};
use testkit::{
    postgres::Server,
    proxy::{Cut, Proxy, Target, Trap},
};
use tokio::task::JoinSet;
use tokio_stream::{StreamExt, wrappers::ReceiverStream};
use tonic::Code;
use tonic_types::StatusExt;

use crate::harness::*;

/// Publishes through the proxy while commits are interrupted.
async fn cut_commits(judged: bool) {
    let mut database = TestDatabase::new(Backend::Postgres).await;
    let proxy = Proxy::start(Target::of(&database.url_text())).await;
    database.url = Database::Postgres(proxy.url(&database.url_text()));
    let server = TestServer::on(database).await;
    let mut client = server.client().await;
    let mut expected = [0; 3];

    for (round, cut) in
        [Cut::Before, Cut::During, Cut::After].into_iter().cycle().take(12).enumerate()
    {
        let old = format!("old-{round}");
        let new = format!("marked-{round}-");
        publish(&mut client, vec![event("t", &old)]).await;
        if !judged {
            // After a batch of new events, the next one is expected to be all new too.
            publish(&mut client, vec![event("t", &format!("more-{round}"))]).await;
            expected = [expected[0] + 1, expected[1] + 1, expected[2]];
        }
        expected = [expected[0] + 1, expected[1] + 1, expected[2]];

        // A batch of new events sends each key once, in the commit; otherwise keys are looked up
        // first.
        let times = if judged { 3 } else { 1 };
        proxy.set_trap(Some(Trap::Message { marker: new.clone().into_bytes(), times, cut }));
        let (batch, verdicts_expected) = match judged {
            true => {
                expected = [expected[0] + 3, expected[1] + 1, expected[2] + 2];
                let batch = vec![event("t", &new), event("t", &old), event("t", &new)];
                (batch, vec![Accepted, Duplicate, Duplicate])
            }
            false => {
                expected = [expected[0] + 1, expected[1] + 1, expected[2]];
                (vec![event("t", &new)], vec![Accepted])
            }
        };
        let answered = verdicts(&mut client, batch).await;
        assert!(proxy.is_sprung(), "{round} {cut:?}");
        assert_eq!(answered, verdicts_expected, "{round} {cut:?}");
        let [received, unique, duplicates, _] = counters(&mut client).await;
        assert_eq!([received, unique, duplicates], expected, "{round} {cut:?}");
        assert_eq!(server.stored().await, unique);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn new_batch_survives_an_interrupted_commit() {
    cut_commits(false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn deduplicated_batch_survives_an_interrupted_commit() {
    cut_commits(true).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn database_kill_keeps_counts_exact() {
    let starting = tokio::task::spawn_blocking(|| Server::start("-c shared_buffers=32MB"));
    let database_server = Arc::new(starting.await.expect("started"));
    let server = TestServer::on(TestDatabase::on(&database_server).await).await;
    let mut publishing = JoinSet::new();
    for publisher in 0..4 {
        let mut client = server.client().await;
        publishing.spawn(async move {
            let mut totals = [0; 3];
            for batch in 0..300 {
                let id = |n| format!("{publisher}-{batch}-{n}");
                let events = (0..20).map(|n| event(&format!("t{}", n % 5), &id(n))).collect();
                let response = publish(&mut client, events).await;
                totals[0] += response.received;
                totals[1] += response.unique_processed;
                totals[2] += response.duplicate_dropped;
            }
            totals
        });
    }
    let mut client = server.client().await;
    for kills in 1..=3 {
        // Reads fail briefly after each kill.
        while client
            .get_stats(GetStatsRequest::default())
            .await
            .map_or(0, |stats| stats.into_inner().received)
            < kills * 4_000
        {}
        let database_server = Arc::clone(&database_server);
        let killing = tokio::task::spawn_blocking(move || database_server.kill_and_restart());
        killing.await.expect("killed and restarted");
    }
    let mut totals = [0; 3];
    while let Some(published) = publishing.join_next().await {
        let published = published.expect("no error");
        totals.iter_mut().zip(published).for_each(|(total, part)| *total += part);
    }
    // Each event was sent once, so each is new and there are no duplicates.
    assert_eq!(totals, [24_000, 24_000, 0]);
    assert_eq!(server.stored().await, 24_000);
    assert_eq!(counters(&mut client).await, [24_000, 24_000, 0, 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_stream_leaves_queue_capacity_for_others() {
    let server = TestServer::start(Backend::Postgres).await;
    let blocker = block_lanes(&server.database).await;

    // More than the whole queue, from one producer.
    let payload = format!(r#"{{"x":"{}"}}"#, "x".repeat(1_000_000));
    let (sent, requests) = tokio::sync::mpsc::channel(1);
    let mut client = server.client().await;
    let stream = ReceiverStream::new(requests);
    let responses = client.publish_stream(stream).await.expect("a stream").into_inner();
    let flooding = tokio::spawn(async move {
        for request in 0..30 {
            let id = |n| format!("{request}-{n}");
            let events = (0..3).map(|n| event_with("flood", &id(n), &payload)).collect();
            let request = PublishStreamRequest { events, request_id: String::new() };
            sent.send(request).await.expect("the stream is open");
        }
    });
    // The stream is not read any further once its share is full, and others are accepted.
    let mut others = JoinSet::new();
    for call in 0..100 {
        let mut client = server.client().await;
        let events = vec![event("t", &call.to_string())];
        others.spawn(async move { try_publish(&mut client, events).await });
    }
    assert!(!flooding.is_finished());
    blocker.batch_execute("ROLLBACK").await.expect("unblock");
    for answer in others.join_all().await {
        assert_eq!(answer.expect("accepted").unique_processed, 1);
    }
    let answers: Vec<_> = responses.collect().await;
    flooding.await.expect("all was sent");
    assert_eq!(answers.len(), 30);
    assert_eq!(counters(&mut client).await, [190, 190, 0, 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn full_queue_rejects_unary_calls_and_keeps_accepted_events() {
    let server = TestServer::start(Backend::Postgres).await;
    let blocker = block_lanes(&server.database).await;

    // More than the queue, in requests of the maximum size.
    let payload = format!(r#"{{"x":"{}"}}"#, "x".repeat(1_000_000));
    let mut calls = JoinSet::new();
    for call in 0..20 {
        let mut client = server.client().await;
        let id = |n| format!("{call}-{n}");
        let events = (0..4).map(|n| event_with("t", &id(n), &payload)).collect();
        calls.spawn(async move { try_publish(&mut client, events).await });
    }
    // Nothing can be committed, so the first response is a rejection.
    let refused = calls.join_next().await.expect("an answer").expect("no panic");
    let status = refused.expect_err("the queue is full");
    assert_eq!(status.code(), Code::ResourceExhausted);
    assert_eq!(reason(&status), "QUEUE_FULL");
    assert!(status.get_details_retry_info().is_some_and(|info| info.retry_delay.is_some()));

    blocker.batch_execute("ROLLBACK").await.expect("unblock");
    let answers = calls.join_all().await;
    let taken = answers.iter().flatten().map(|response| response.unique_processed).sum::<i64>();
    assert!(taken > 0);
    assert_eq!(counters(&mut server.client().await).await, [taken, taken, 0, 0]);
    assert_eq!(server.stored().await, taken);
}
