//! The stores themselves, where the service does not show enough.

use std::sync::Arc;

use event_aggregator::{
    config::Database,
    event::{EventKey, Name, NewEvent, Payload, Timestamp, Verdict},
    store::{Batch, Counters, Store, postgres::PostgresStore, sqlite::SqliteStore},
};
use uuid::Uuid;

use crate::harness::{self, Backend, TestDatabase, TestServer, counters, publish};

on_both_stores!(
    a_batch_is_applied_once_however_often_it_is_committed,
    sequence_numbers_have_no_gaps,
    what_a_store_refuses_costs_its_neighbours_nothing,
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

async fn what_a_store_refuses_costs_its_neighbours_nothing(backend: Backend) {
    use event_aggregator::proto::v1::PublishStatus::{Accepted, Duplicate, Rejected};
    let server = TestServer::start(backend).await;
    let poison = match backend {
        Backend::Postgres => "ALTER TABLE processed_events ADD CHECK (event_id <> 'poison')",
        Backend::Sqlite => {
            "CREATE TRIGGER poison BEFORE INSERT ON processed_events
             WHEN new.event_id = 'poison' BEGIN SELECT raise(ABORT, 'poison'); END"
        }
    };
    server.database.execute(poison).await;
    let mut client = server.client().await;
    let events =
        ["1", "2", "poison", "3", "1", "poison", "4"].map(|id| harness::event("t", id)).to_vec();
    let response = publish(&mut client, events).await;
    let verdicts: Vec<_> = response.results.iter().map(|result| result.status()).collect();
    assert_eq!(verdicts, [Accepted, Accepted, Rejected, Accepted, Duplicate, Rejected, Accepted]);
    let error = response.results[2].error.as_ref().expect("an error");
    assert_eq!(error.code, tonic::Code::Internal as i32);
    assert!(!error.message.contains("poison"), "{}", error.message);
    assert_eq!(counters(&mut client).await, [5, 4, 1, 0]);
}
