//! The stores themselves, where the API does not expose enough.

use std::sync::Arc;

use event_aggregator::{
    app::{self, App},
    config::Database,
    event::{Event, EventKey, Name, NewEvent, Payload, Timestamp, Verdict},
    store::{
        Batch, Counters, Durability, FeedQuery, Filter, ListQuery, Mark, OpenError, Place, Store,
        postgres::PostgresStore, sqlite::SqliteStore,
    },
    testing::limits::{FUTURE_TOLERANCE, MIN_LEDGER_ENTRIES},
};
use uuid::Uuid;

use crate::harness::{self, Backend, TestDatabase, TestServer, counters, publish};

on_both_stores!(
    committing_a_batch_is_idempotent,
    sequence_numbers_have_no_gaps,
    receive_time_is_monotonic,
    any_time_is_found_by_binary_search,
    migration_makes_receive_times_monotonic,
    rejected_event_does_not_affect_its_batch,
    panic_is_not_an_outage,
    ledger_pruning_ignores_instance_clocks,
    clock_jump_keeps_the_ledger_of_unconfirmed_batches,
    clock_far_ahead_is_bounded,
    future_receive_times_can_be_repaired,
    pages_never_exceed_the_requested_size,
    lookup_stops_when_the_response_is_full,
    missing_lanes_are_rejected,
);

async fn open(database: &TestDatabase) -> Arc<dyn Store> {
    try_open(database).await.expect("open")
}

async fn try_open(database: &TestDatabase) -> Result<Arc<dyn Store>, OpenError> {
    Ok(match &database.url {
        Database::Sqlite(path) => Arc::new(SqliteStore::open(path)?),
        Database::Postgres(url) => Arc::new(PostgresStore::open(url, Durability::Waived).await?),
    })
}

fn batch(ids: &[&str]) -> Arc<Batch> {
    batch_at(ids, Timestamp::now().as_micros())
}

/// A batch received at a time, in microseconds since 1970.
fn batch_at(ids: &[&str], micros: i64) -> Arc<Batch> {
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
        received_at: Timestamp::from_micros(micros).expect("valid"),
        events: events.collect(),
    })
}

/// A batch of events with payloads of this size.
fn batch_of(sizes: &[usize]) -> Arc<Batch> {
    let ids: Vec<String> = (0..sizes.len()).map(|id| id.to_string()).collect();
    let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
    let mut batch = Arc::into_inner(batch(&ids)).expect("only reference");
    for (event, bytes) in batch.events.iter_mut().zip(sizes) {
        let text = format!(r#"{{"x":"{}"}}"#, "x".repeat(bytes - 8));
        event.payload = Payload::new("payload", text).expect("valid");
    }
    Arc::new(batch)
}

async fn list(store: &dyn Store, filter: Filter) -> Vec<Event> {
    let heads = vec![i64::MAX; store.lanes().into()];
    let query = ListQuery { filter, heads, after: None, limit: 100, max_bytes: 1_000 };
    store.list(query).await.expect("page").events
}

async fn committing_a_batch_is_idempotent(backend: Backend) {
    use Verdict::{Accepted, Duplicate};
    let database = TestDatabase::new(backend).await;
    let store = open(&database).await;
    let verdicts = |outcomes: Vec<event_aggregator::event::Outcome>| -> Vec<Verdict> {
        outcomes.into_iter().map(|outcome| outcome.verdict).collect()
    };
    store.commit(batch(&["before"])).await.expect("commit");

    // As after a COMMIT whose reply was lost: its events must not be reported as duplicates.
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

async fn receive_time_is_monotonic(backend: Backend) {
    let database = TestDatabase::new(backend).await;
    let store = open(&database).await;
    // The clock is set back between the first and the second batch.
    let mut received = Vec::new();
    for (id, micros) in [("a", 2_000), ("b", 1_000), ("a", 1_500), ("c", 3_000)] {
        let outcomes = store.commit(batch_at(&[id], micros)).await.expect("commit");
        received.push(outcomes[0].first_received_at.as_micros());
    }
    assert_eq!(received, [2_000, 2_000, 2_000, 3_000]);
    let times: Vec<i64> = list(&*store, Filter::default())
        .await
        .iter()
        .map(|event| event.received_at.as_micros())
        .collect();
    assert_eq!(times, [3_000, 2_000, 2_000], "what was answered is what is stored");
    store.close().await;
}

async fn any_time_is_found_by_binary_search(backend: Backend) {
    let database = TestDatabase::new(backend).await;
    let store = open(&database).await;
    for (number, micros) in [10, 10, 20, 20, 20, 30, 50].into_iter().enumerate() {
        store.commit(batch_at(&[&number.to_string()], micros)).await.expect("commit");
    }
    // As after a purge.
    database.execute("DELETE FROM processed_events WHERE seq IN (1, 4, 6)").await;
    let times = [2, 3, 5, 7].into_iter().zip([10, 20, 20, 50]);
    for start in [9, 10, 11, 20, 21, 30, 49, 50, 51] {
        let expected: Vec<i64> =
            times.clone().filter(|&(_, time)| time >= start).map(|(seq, _)| seq).collect();
        let filter = Filter {
            start_time: Timestamp::from_micros(start),
            oldest_first: true,
            ..Filter::default()
        };
        let found = list(&*store, filter).await;
        let found: Vec<i64> = found.iter().map(|event| event.position.seq).collect();
        assert_eq!(found, expected, "from {start}");
    }
    store.close().await;
}

mod schema {
    pub mod sqlite {
        refinery::embed_migrations!("src/store/sqlite/migrations");
    }
    pub mod postgres {
        refinery::embed_migrations!("src/store/postgres/migrations");
    }
}

async fn migration_makes_receive_times_monotonic(backend: Backend) {
    let database = TestDatabase::new(backend).await;
    let target = refinery::Target::Version(1);
    match &database.url {
        Database::Sqlite(path) => {
            let mut connection = rusqlite::Connection::open(path).expect("open");
            let runner = schema::sqlite::migrations::runner().set_target(target);
            runner.run(&mut connection).expect("migrate");
        }
        Database::Postgres(url) => {
            let mut client = harness::connect(url).await;
            let runner = schema::postgres::migrations::runner().set_target(target);
            runner.run_async(&mut client).await.expect("migrate");
        }
    }
    for (seq, micros) in [(1, 5_000), (2, 4_000), (3, 6_000)] {
        let (columns, lane, time) = match backend {
            Backend::Sqlite => ("", "", micros.to_string()),
            Backend::Postgres => ("lane, ", "0, ", format!("to_timestamp({micros} / 1e6)")),
        };
        let insert = format!(
            "INSERT INTO processed_events ({columns}seq, topic, event_id, source, payload, received_at)
             VALUES ({lane}{seq}, 't', 'e{seq}', 's', '{{}}', {time})"
        );
        database.execute(&insert).await;
    }
    database.execute("UPDATE lanes SET head = 3 WHERE lane = 0").await;

    let store = open(&database).await;
    store.commit(batch_at(&["new"], 1_000)).await.expect("commit");
    let times: Vec<i64> = list(&*store, Filter::default())
        .await
        .iter()
        .map(|event| event.received_at.as_micros())
        .collect();
    assert_eq!(times, [6_000, 6_000, 5_000, 5_000]);
    store.close().await;
}

async fn rejected_event_does_not_affect_its_batch(backend: Backend) {
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

async fn panic_is_not_an_outage(backend: Backend) {
    let database = TestDatabase::new(backend).await;
    let store = open(&database).await;
    // More than fits in a capacity.
    let (limit, topics) = (i64::MAX as usize, Arc::default());
    let after = Mark::default();
    let query = FeedQuery { lane: 0, after, last: 1, topics, limit, max_bytes: 1_000 };
    let asked = Arc::clone(&store);
    let reading = tokio::spawn(async move { asked.read(query).await });
    assert!(reading.await.expect_err("a panic").is_panic());
    store.ping().await.expect("database responds");
    store.heads(Vec::new()).await.expect("it is read by others");
    store.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn writer_panic_stops_the_service() {
    let database = TestDatabase::new(Backend::Sqlite).await;
    let app = App::start(&harness::config_for(&database.url)).await.expect("start");
    let mut client = harness::connect_to(app.address()).await;
    let running = tokio::spawn(app.run(std::future::pending()));
    // There is no number after the last one.
    database.execute("UPDATE lanes SET head = 9223372036854775807").await;
    let answer = harness::try_publish(&mut client, vec![harness::event("t", "1")]).await;
    assert_eq!(answer.expect_err("no writer").code(), tonic::Code::Unavailable);
    let ended = running.await.expect("no panic");
    assert!(matches!(ended, Err(app::Error::Broken)), "{ended:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn slow_pruning_does_not_look_like_an_outage() {
    let database = TestDatabase::new(Backend::Postgres).await;
    open(&database).await.close().await;
    let blocker = harness::connect(&database.url_text()).await;
    blocker.batch_execute("BEGIN; LOCK TABLE batch_ledger").await.expect("lock");
    let store = open(&database).await;
    let pruning = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()
                   AND wait_event_type = 'Lock' AND query LIKE '%DELETE FROM batch_ledger%'";
    while database.number(pruning).await == 0 {
        tokio::task::yield_now().await;
    }
    store.ping().await.expect("database responds");
    assert_eq!(database.number(pruning).await, 1, "it was not waited for");
    drop(blocker);
    store.close().await;
}

async fn ledger_pruning_ignores_instance_clocks(backend: Backend) {
    let database = TestDatabase::new(backend).await;
    let store = open(&database).await;
    // An instance whose clock is a day behind commits, and one with an old entry.
    let behind = Timestamp::now().as_micros() - 86_400_000_000;
    let id = uuid::Builder::from_unix_timestamp_millis((behind / 1_000) as u64, &[7; 10]);
    let events = batch(&["of one behind"]).events.clone();
    let received_at = Timestamp::from_micros(behind).expect("valid");
    let of_one_behind = Arc::new(Batch { id: id.into_uuid(), lane: 0, received_at, events });
    store.commit(Arc::clone(&of_one_behind)).await.expect("commit");
    store.commit(batch(&["old"])).await.expect("commit");
    // The last entries are kept regardless of their age.
    database.execute(&entries(backend, MIN_LEDGER_ENTRIES)).await;
    let age = match backend {
        Backend::Sqlite => "7200 * 1000000",
        Backend::Postgres => "interval '2 hours'",
    };
    let old =
        format!("UPDATE batch_ledger SET entered_at = entered_at - {age} WHERE first_seq = 2");
    database.execute(&old).await;
    store.close().await;
    drop(store);

    // Pruning comes first: on SQLite by the writer, after a commit.
    let store = open(&database).await;
    store.commit(batch(&["new"])).await.expect("commit");
    while database.number("SELECT count(*) FROM batch_ledger WHERE first_seq = 2").await > 0 {
        tokio::task::yield_now().await;
    }
    let outcomes = store.commit(of_one_behind).await.expect("commit");
    assert_eq!(outcomes[0].verdict, Verdict::Accepted, "the same batch");
    assert_eq!(store.stats(None, 0).await.expect("stats").totals.received, 3);
    store.close().await;
}

/// Inserts this many ledger entries after those of the first lane.
fn entries(backend: Backend, count: i64) -> String {
    match backend {
        Backend::Sqlite => format!(
            "WITH RECURSIVE n (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < {count})
             INSERT INTO batch_ledger (batch_id, lane, first_seq, events, committed_at)
             SELECT randomblob(16), 0, 1000 + n, 0, unixepoch() * 1000000 FROM n"
        ),
        Backend::Postgres => format!(
            "INSERT INTO batch_ledger (batch_id, lane, first_seq, events, committed_at)
             SELECT gen_random_uuid(), 0, 1000 + n, 0, now() FROM generate_series(1, {count}) AS n"
        ),
    }
}

async fn clock_jump_keeps_the_ledger_of_unconfirmed_batches(backend: Backend) {
    let database = TestDatabase::new(backend).await;
    let store = open(&database).await;
    // The reply is lost. Then the database's clock jumps, so that the entry looks old.
    let in_doubt = batch(&["1", "2"]);
    store.commit(Arc::clone(&in_doubt)).await.expect("commit");
    let age = match backend {
        Backend::Sqlite => "7200 * 1000000",
        Backend::Postgres => "interval '2 hours'",
    };
    database.execute(&format!("UPDATE batch_ledger SET entered_at = entered_at - {age}")).await;
    store.close().await;
    drop(store);

    // Pruning comes first, on SQLite after a commit. An extra entry, the first one in order, tells
    // when it is done, because it exceeds the number to keep.
    let sacrifice = match backend {
        Backend::Sqlite => "randomblob(16), 0, -5, 0, 0, 0",
        Backend::Postgres => "gen_random_uuid(), 0, -5, 0, 'epoch', 'epoch'",
    };
    let insert = format!(
        "INSERT INTO batch_ledger (batch_id, lane, first_seq, events, committed_at, entered_at)
         SELECT {sacrifice}"
    );
    database.execute(&insert).await;
    // With the unconfirmed batch, and the next one on SQLite, exactly as many as are kept.
    let others = MIN_LEDGER_ENTRIES - if let Backend::Sqlite = backend { 2 } else { 1 };
    database.execute(&entries(backend, others)).await;
    let store = open(&database).await;
    if let Backend::Sqlite = backend {
        store.commit(batch(&["new"])).await.expect("commit");
    }
    while database.number("SELECT count(*) FROM batch_ledger WHERE first_seq = -5").await > 0 {
        tokio::task::yield_now().await;
    }
    let outcomes = store.commit(in_doubt).await.expect("commit");
    let verdicts: Vec<Verdict> = outcomes.iter().map(|outcome| outcome.verdict).collect();
    assert_eq!(verdicts, [Verdict::Accepted; 2], "the same batch, and sent once");
    store.close().await;
}

async fn clock_far_ahead_is_bounded(backend: Backend) {
    let database = TestDatabase::new(backend).await;
    let store = open(&database).await;
    let now = || Timestamp::now().as_micros();
    let tolerance = FUTURE_TOLERANCE.as_micros() as i64;
    let ten_years = 10 * 365 * 86_400_000_000;
    let outcomes = store.commit(batch_at(&["ahead"], now() + ten_years)).await.expect("commit");
    let bounded = outcomes[0].first_received_at;
    assert!(bounded.as_micros() <= now() + tolerance, "{bounded}");
    let ahead = now() + tolerance / 2;
    let outcomes = store.commit(batch_at(&["after"], ahead)).await.expect("commit");
    assert!(outcomes[0].first_received_at >= bounded, "never backwards");
    let listed = list(&*store, Filter::default()).await;
    assert!(listed.iter().all(|event| event.received_at.as_micros() <= now() + tolerance));
    store.close().await;
}

async fn future_receive_times_can_be_repaired(backend: Backend) {
    let database = TestDatabase::new(backend).await;
    let store = open(&database).await;
    for id in ["1", "2", "3"] {
        store.commit(batch(&[id])).await.expect("commit");
    }
    // As stored by an earlier version.
    let (year, of_lane) = match backend {
        Backend::Sqlite => ("365 * 86400 * 1000000", "lane = 0"),
        Backend::Postgres => ("interval '365 days'", "lane = 0"),
    };
    for late in [
        format!("UPDATE processed_events SET received_at = received_at + {year} WHERE seq > 1"),
        format!("UPDATE lanes SET last_received_at = last_received_at + {year} WHERE {of_lane}"),
        format!("UPDATE audit_stats SET last_received_at = last_received_at + {year}"),
    ] {
        database.execute(&late).await;
    }
    let outcomes = store.commit(batch(&["4"])).await.expect("commit");
    assert!(outcomes[0].first_received_at > Timestamp::now(), "the fault");
    store.close().await;
    drop(store);

    let text = include_str!("../../../docs/operations.md");
    let heading = match backend {
        Backend::Sqlite => "On SQLite:",
        Backend::Postgres => "On PostgreSQL:",
    };
    let (_, rest) = text.split_once("## Times in the future").expect("the section");
    let (_, rest) = rest.split_once(heading).expect("the store");
    let sql = rest.split("```sql\n").nth(1).and_then(|rest| rest.split("```").next());
    database.execute(sql.expect("what to run")).await;

    let store = open(&database).await;
    let repaired = Timestamp::now();
    store.commit(batch(&["5"])).await.expect("commit");
    let filter = Filter { oldest_first: true, ..Filter::default() };
    let listed = list(&*store, filter.clone()).await;
    let ids: Vec<&str> = listed.iter().map(|event| &*event.key.event_id).collect();
    assert_eq!(ids, ["1", "2", "3", "4", "5"], "the order of before");
    assert!(listed.iter().all(|event| event.received_at <= Timestamp::now()));
    let since = list(&*store, Filter { start_time: Some(repaired), ..filter }).await;
    assert_eq!(since.len(), 1, "what came since");
    let stats = store.stats(None, 1).await.expect("stats");
    assert!(stats.topics[0].last_received_at <= Timestamp::now());
    store.close().await;
}

async fn pages_never_exceed_the_requested_size(backend: Backend) {
    let database = TestDatabase::new(backend).await;
    let store = open(&database).await;
    // Many small events, a large one, more small ones, and some larger than a page.
    let sizes = [&[10; 100][..], &[5_000], &[10; 20], &[20_000; 3], &[10]].concat();
    store.commit(batch_of(&sizes)).await.expect("commit");
    let mut query = ListQuery {
        filter: Filter { oldest_first: true, ..Filter::default() },
        heads: vec![i64::MAX; store.lanes().into()],
        after: None,
        limit: 1_000,
        max_bytes: 5_500,
    };
    let mut pages = Vec::new();
    loop {
        let page = store.list(query.clone()).await.expect("page");
        pages.push(page.events.len());
        query.after = page.events.last().map(Place::from);
        if !page.more {
            break;
        }
    }
    assert_eq!(pages, [100, 21, 1, 1, 1, 1]);
    query.after = None;
    query.limit = 110;
    let page = store.list(query).await.expect("page");
    assert_eq!((page.events.len(), page.more), (100, true));
    store.close().await;
}

async fn lookup_stops_when_the_response_is_full(backend: Backend) {
    let database = TestDatabase::new(backend).await;
    let store = open(&database).await;
    let sizes = [&[10; 100][..], &[5_000], &[10; 20], &[20_000; 3], &[10]].concat();
    store.commit(batch_of(&sizes)).await.expect("commit");
    // Each key is followed by a missing one, and then all are repeated.
    let id = |number: usize| format!("{}{}", number / 2, ["", "-missing"][number % 2]);
    let ids: Vec<String> = (0..sizes.len() * 2).map(id).collect();
    let ids: Vec<&str> = ids.iter().chain(&ids).map(String::as_str).collect();
    let mut keys: Vec<EventKey> =
        batch(&ids).events.iter().map(|event| event.key.clone()).collect();
    let mut answers = Vec::new();
    while !keys.is_empty() {
        let found = store.get(keys.clone(), 5_500).await.expect("found");
        let number = |key: &EventKey| key.event_id.parse::<usize>().ok();
        let there: Vec<usize> =
            (0..found.reached).filter(|&index| number(&keys[index]).is_some()).collect();
        let indexes: Vec<usize> = found.events.iter().map(|(index, _)| *index).collect();
        assert_eq!(indexes, there, "existing keys up to the cut");
        assert!(found.events.iter().all(|(index, event)| event.key == keys[*index]));
        answers.push(found.events.len());
        keys.drain(..found.reached);
    }
    assert_eq!(answers, [100, 21, 1, 1, 1, 101, 21, 1, 1, 1, 1]);
    store.close().await;
}

async fn missing_lanes_are_rejected(backend: Backend) {
    let database = TestDatabase::new(backend).await;
    let store = open(&database).await;
    store.close().await;
    drop(store);
    database.execute("DELETE FROM lanes WHERE lane = 0").await;
    let refused = try_open(&database).await.err().expect("refused").to_string();
    assert!(refused.contains("lanes") && refused.contains("backup"), "{refused}");
    database.execute("DELETE FROM lanes").await;
    let refused = try_open(&database).await.err().expect("refused").to_string();
    assert!(refused.contains("lanes") && refused.contains("backup"), "{refused}");
    if let Backend::Postgres = backend {
        database.execute("INSERT INTO lanes (lane) SELECT generate_series(0, 12)").await;
        let refused = try_open(&database).await.err().expect("refused").to_string();
        assert!(refused.contains("13 lanes"), "{refused}");
    }
}
