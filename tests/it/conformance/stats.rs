//! GetStats: exact counters.

use event_aggregator::proto::v1::GetStatsRequest;

use crate::harness::*;

on_both_stores!(
    empty_store_has_zero_counters,
    counters_are_per_topic_and_total,
    concurrent_reads_see_consistent_counters,
);

async fn empty_store_has_zero_counters(backend: Backend) {
    let server = TestServer::start(backend).await;
    let stats = stats(&mut server.client().await).await;
    assert_eq!([stats.received, stats.unique_processed, stats.duplicate_dropped], [0; 3]);
    assert_eq!([stats.conflicts, stats.topics_active], [0; 2]);
    assert!(stats.topics.is_empty() && stats.uptime.is_some() && stats.since_start.is_some());
}

async fn counters_are_per_topic_and_total(backend: Backend) {
    let server = TestServer::start(backend).await;
    let mut client = server.client().await;
    publish(&mut client, vec![event("small", "1")]).await;
    let events: Vec<_> = (0..10).map(|n| event("large", &(n / 2).to_string())).collect();
    publish(&mut client, events).await;
    publish(&mut client, vec![event("large", "0"), event_with("large", "0", r#"{"x":1}"#)]).await;

    let all = stats(&mut client).await;
    assert_eq!([all.received, all.unique_processed, all.duplicate_dropped], [13, 6, 7]);
    assert_eq!([all.conflicts, all.topics_active], [1, 2]);
    let names: Vec<_> = all.topics.iter().map(|topic| &*topic.topic).collect();
    assert_eq!(names, ["large", "small"], "largest first");
    let large = &all.topics[0];
    assert_eq!([large.received, large.unique_processed, large.duplicate_dropped], [12, 5, 7]);
    assert_eq!(large.conflicts, 1);
    assert!(large.last_received_at.is_some());

    let ask = |topic: &str, max_topics| GetStatsRequest { topic: topic.into(), max_topics };
    let one = client.get_stats(ask("small", 0)).await.expect("stats").into_inner();
    assert_eq!([one.received, one.topics_active, one.topics.len() as i64], [1, 1, 1]);
    let none = client.get_stats(ask("unknown", 0)).await.expect("stats").into_inner();
    assert_eq!([none.received, none.topics_active], [0, 0]);
    let cut = client.get_stats(ask("", 1)).await.expect("stats").into_inner();
    assert_eq!([cut.received, cut.topics_active, cut.topics.len() as i64], [13, 2, 1]);
}

async fn concurrent_reads_see_consistent_counters(backend: Backend) {
    let server = TestServer::start(backend).await;
    let mut client = server.client().await;
    let mut publisher = server.client().await;
    let publishing = tokio::spawn(async move {
        for round in 0..200 {
            let events = (0..20).map(|n| event(&format!("t{}", n % 5), &format!("{}", round + n)));
            publish(&mut publisher, events.collect()).await;
        }
    });
    let mut last = 0;
    while !publishing.is_finished() {
        let stats = stats(&mut client).await;
        assert_eq!(stats.received, stats.unique_processed + stats.duplicate_dropped);
        assert!(stats.received >= last);
        last = stats.received;
        let sum: i64 = stats.topics.iter().map(|topic| topic.received).sum();
        assert_eq!(sum, stats.received);
    }
    publishing.await.expect("published");
    let [received, unique, ..] = counters(&mut client).await;
    assert_eq!(received, 4_000);
    assert_eq!(unique, server.stored().await);
}
