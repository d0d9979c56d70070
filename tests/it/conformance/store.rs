//! The stores themselves, where the service does not show enough.

use std::sync::Arc;

use event_aggregator::{
    config::Database,
    event::{EventKey, Name, NewEvent, Payload, Timestamp, Verdict},
    store::{Batch, Counters, Store, postgres::PostgresStore, sqlite::SqliteStore},
};
use uuid::Uuid;

use crate::harness::{Backend, TestDatabase};

on_both_stores!(
    a_batch_is_applied_once_however_often_it_is_committed,
    sequence_numbers_have_no_gaps,
);

async fn open(database: &TestDatabase) -> Arc<dyn Store> {
    match &database.url {
        Database::Sqlite(path) => Arc::new(SqliteStore::open(path).expect("open")),
        Database::Postgres(url) => Arc::new(PostgresStore::open(url).await.expect("open")),
    }
}

fn batch(ids: &[&str]) -> Arc<Batch> {
    let name = |text: &str| Name::new("name", text.to_owned()).expect("valid");
    let events = ids.iter().map(|id| NewEvent {
        key: EventKey { topic: name("t"), event_id: name(id) },
        timestamp: None,
        source: name("s"),
        payload: Payload::default(),
    });
    Arc::new(Batch {
        id: Uuid::now_v7(),
        lane: 0,
        received_at: Timestamp::now(),
        events: events.collect(),
    })
}

async fn a_batch_is_applied_once_however_often_it_is_committed(backend: Backend) {
    use Verdict::{Accepted, Duplicate};
    let database = TestDatabase::new(backend).await;
    let store = open(&database).await;
    let verdicts = |outcomes: Vec<event_aggregator::event::Outcome>| -> Vec<Verdict> {
        outcomes.into_iter().map(|outcome| outcome.verdict).collect()
    };
    store.commit(batch(&["before"])).await.expect("commit");

    // As after a COMMIT whose answer was lost: nobody may be told that its event is a duplicate.
    let retried = batch(&["new", "before", "new", "other"]);
    let expected = [Accepted, Duplicate, Duplicate, Accepted];
    for _ in 0..3 {
        let outcomes = store.commit(Arc::clone(&retried)).await.expect("commit");
        assert_eq!(verdicts(outcomes), expected);
    }
    store.commit(batch(&["new"])).await.expect("commit");
    let outcomes = store.commit(retried).await.expect("commit");
    assert_eq!(verdicts(outcomes), expected, "also after others came");

    let totals = store.stats(None, 0).await.expect("stats").totals;
    let counted = Counters { received: 6, unique_processed: 3, duplicate_dropped: 3, conflicts: 0 };
    assert_eq!(totals, counted);
    store.close().await;
}

async fn sequence_numbers_have_no_gaps(backend: Backend) {
    let database = TestDatabase::new(backend).await;
    let store = open(&database).await;
    for ids in [&["a", "b", "a"][..], &["b", "a"], &["c", "a", "d"], &["e"]] {
        store.commit(batch(ids)).await.expect("commit");
    }
    let numbers = "SELECT count(*) + 10 * min(seq) + 100 * max(seq) FROM processed_events";
    assert_eq!(database.number(numbers).await, 5 + 10 + 500);
    assert_eq!(database.number("SELECT head FROM lanes WHERE lane = 0").await, 5);
    store.close().await;
}
