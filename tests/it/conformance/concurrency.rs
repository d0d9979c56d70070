//! Concurrent producers.

use event_aggregator::proto::v1::{Event, PublishRequest};

use crate::harness::*;

on_both_stores!(
    overlapping_batches_do_not_deadlock,
    concurrent_duplicates_are_accepted_once,
    cancelled_call_is_stored_and_counted_at_most_once,
);

async fn overlapping_batches_do_not_deadlock(backend: Backend) {
    const ROUNDS: i64 = 1_000;
    const EVENTS: i64 = 20;
    let server = TestServer::start(backend).await;
    let batch = |round: i64| -> Vec<Event> {
        (0..EVENTS).map(|n| event(&format!("t{}", n % 6), &format!("{round}-{n}"))).collect()
    };
    let publish_all = |reversed: bool, mut client: Client| async move {
        let mut unique = 0;
        for round in 0..ROUNDS {
            let mut events = batch(round);
            if reversed {
                events.reverse();
            }
            unique += publish(&mut client, events).await.unique_processed;
        }
        unique
    };
    let (one, other) = (server.client().await, server.client().await);
    let (one, other) = tokio::join!(
        tokio::spawn(publish_all(false, one)),
        tokio::spawn(publish_all(true, other)),
    );
    let total = ROUNDS * EVENTS;
    assert_eq!(one.expect("no error") + other.expect("no error"), total);
    assert_eq!(counters(&mut server.client().await).await, [2 * total, total, total, 0]);
    assert_eq!(server.stored().await, total);
}

async fn concurrent_duplicates_are_accepted_once(backend: Backend) {
    let server = TestServer::start(backend).await;
    let client = server.client().await;
    let calls: Vec<_> = (0..200)
        .map(|_| {
            let mut client = client.clone();
            tokio::spawn(async move { publish(&mut client, vec![event("t", "1")]).await })
        })
        .collect();
    let mut unique = 0;
    for call in calls {
        unique += call.await.expect("answered").unique_processed;
    }
    assert_eq!(unique, 1);
    assert_eq!(counters(&mut server.client().await).await, [200, 1, 199, 0]);
}

async fn cancelled_call_is_stored_and_counted_at_most_once(backend: Backend) {
    let server = TestServer::start(backend).await;
    let client = server.client().await;
    let mut cancelled = 0;
    for id in 0..100 {
        let mut client = client.clone();
        let events = vec![event("t", &id.to_string())];
        let call = tokio::spawn(async move {
            client.publish(PublishRequest { events, allow_partial: false }).await
        });
        // Cancelled at any time from before the request to after the response.
        for _ in 0..id * 3 {
            tokio::task::yield_now().await;
        }
        call.abort();
        cancelled += i64::from(call.await.is_err());
    }
    // A later call to the same topic, hence the same lane, shows that all of them are finished.
    let mut client = server.client().await;
    publish(&mut client, vec![event("t", "last")]).await;
    let server = server.restart().await;
    let [received, unique, duplicates, _] = counters(&mut server.client().await).await;
    assert_eq!(unique, server.stored().await);
    assert_eq!([received, duplicates], [unique, 0]);
    assert!((101 - cancelled..=101).contains(&received), "{received} {cancelled}");
}
