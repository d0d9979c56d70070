//! Direct measurements of PostgreSQL, without the service.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Instant,
};

use event_aggregator::{
    store::{
        Durability, Store,
        postgres::{JsonText, PostgresStore, STORE},
    },
    testing::limits::FUTURE_TOLERANCE,
};
use testkit::postgres::Database;
use time::OffsetDateTime;
use tokio::task::JoinSet;
use uuid::Uuid;

/// What one batch holds at most, in the service and here.
const BATCH: usize = 4_096;

/// Lanes of a new database, each with a connection.
const LANES: usize = 4;

const TOPICS: usize = 16;

/// The payload of the service's `bench` command.
fn payload() -> String {
    format!(r#"{{"data":"{}"}}"#, "x".repeat(150 - r#"{"data":""}"#.len()))
}

/// A batch as columns, generated before the measurement.
struct Columns {
    topics: Vec<String>,
    ids: Vec<String>,
    places: Vec<i64>,
    times: Vec<Option<OffsetDateTime>>,
    sources: Vec<&'static str>,
    payloads: Vec<String>,
    counted_topics: Vec<String>,
    counts: Vec<i64>,
    conflicts: Vec<i64>,
}

/// Batches for one lane: random ids in that lane's share of the topics, sorted by key.
fn batches(lane: usize, events: usize, sorted: bool) -> Vec<Columns> {
    let mut left = events;
    let mut batches = Vec::new();
    while left > 0 {
        let size = left.min(BATCH);
        left -= size;
        let mut keys: Vec<(String, String)> = (0..size)
            .map(|n| {
                let topic = format!("bench-{}", lane + LANES * (n % (TOPICS / LANES)));
                (topic, Uuid::new_v4().simple().to_string())
            })
            .collect();
        if sorted {
            keys.sort();
        }
        let mut counted: Vec<(String, i64)> = Vec::new();
        for (topic, _) in &keys {
            match counted.iter_mut().find(|(counted, _)| counted == topic) {
                Some((_, count)) => *count += 1,
                None => counted.push((topic.clone(), 1)),
            }
        }
        let (counted_topics, counts): (Vec<_>, Vec<_>) = counted.into_iter().unzip();
        let (topics, ids) = keys.into_iter().unzip();
        batches.push(Columns {
            topics,
            ids,
            places: (0..size as i64).collect(),
            times: vec![None; size],
            sources: vec!["bench"; size],
            payloads: vec![payload(); size],
            conflicts: vec![0; counts.len()],
            counted_topics,
            counts,
        });
    }
    batches
}

/// The statement of the service, by one connection per lane.
pub async fn same_statement(database: &Database, events: usize) -> f64 {
    let store = PostgresStore::open(&database.url, Durability::Demanded).await.expect("migrate");
    let store_id = store.id();
    store.close().await;
    let mut lanes = Vec::new();
    for lane in 0..LANES {
        let client = database.connect().await;
        client.batch_execute("SET plan_cache_mode = force_generic_plan").await.expect("set");
        let statement = client.prepare(STORE).await.expect("prepare");
        lanes.push((lane, client, statement, batches(lane, events / LANES, true)));
    }
    let mut tasks = JoinSet::new();
    let begun = Instant::now();
    for (lane, client, statement, batches) in lanes {
        tasks.spawn(async move {
            for batch in batches {
                let payloads: Vec<JsonText<'_>> =
                    batch.payloads.iter().map(|payload| JsonText(payload)).collect();
                client
                    .query_one(
                        &statement,
                        &[
                            &Uuid::now_v7(),
                            &(lane as i16),
                            &(batch.topics.len() as i64),
                            &OffsetDateTime::now_utc(),
                            &batch.topics,
                            &batch.ids,
                            &batch.places,
                            &batch.times,
                            &batch.sources,
                            &payloads,
                            &batch.counted_topics,
                            &batch.counts,
                            &batch.counts,
                            &batch.conflicts,
                            &store_id,
                            &FUTURE_TOLERANCE.as_secs_f64(),
                        ],
                    )
                    .await
                    .expect("store");
            }
        });
    }
    tasks.join_all().await;
    events as f64 / begun.elapsed().as_secs_f64()
}

/// What one would write first: one table with jsonb and an index for listing the newest, all keys
/// given back, one row of counters.
pub async fn naive_statement(database: &Database, events: usize) -> f64 {
    const MAX_CONNECTIONS: usize = 2;
    database
        .connect()
        .await
        .batch_execute(
            "CREATE TABLE naive_events (
                 topic text NOT NULL, event_id text NOT NULL, source text NOT NULL,
                 payload jsonb NOT NULL, received_at timestamptz NOT NULL DEFAULT now(),
                 PRIMARY KEY (topic, event_id));
             CREATE INDEX ON naive_events (received_at);
             CREATE TABLE naive_stats (id int PRIMARY KEY, received bigint, unique_processed bigint);
             INSERT INTO naive_stats VALUES (1, 0, 0)",
        )
        .await
        .expect("tables");
    let mut connections = Vec::new();
    for connection in 0..MAX_CONNECTIONS {
        let client = database.connect().await;
        let insert = "INSERT INTO naive_events (topic, event_id, source, payload)
                      SELECT u.topic, u.event_id, u.source, u.payload::jsonb
                      FROM unnest($1::text[], $2::text[], $3::text[], $4::text[])
                           AS u (topic, event_id, source, payload)
                      ON CONFLICT DO NOTHING RETURNING topic, event_id";
        let count = "UPDATE naive_stats SET received = received + $1,
                                            unique_processed = unique_processed + $2 WHERE id = 1";
        let insert = client.prepare(insert).await.expect("prepare");
        let count = client.prepare(count).await.expect("prepare");
        connections.push((
            client,
            insert,
            count,
            batches(connection, events / MAX_CONNECTIONS, false),
        ));
    }
    let mut tasks = JoinSet::new();
    let begun = Instant::now();
    for (mut client, insert, count, batches) in connections {
        tasks.spawn(async move {
            for batch in batches {
                let transaction = client.transaction().await.expect("begin");
                let stored = transaction
                    .query(&insert, &[&batch.topics, &batch.ids, &batch.sources, &batch.payloads])
                    .await
                    .expect("insert");
                let (received, unique) = (batch.topics.len() as i64, stored.len() as i64);
                transaction.execute(&count, &[&received, &unique]).await.expect("count");
                transaction.commit().await.expect("commit");
            }
        });
    }
    tasks.join_all().await;
    events as f64 / begun.elapsed().as_secs_f64()
}

pub struct SingleRows {
    pub rate: f64,
    pub p50_millis: f64,
}

/// One row a commit, without counters, by so many connections.
pub async fn single_rows(database: &Database, events: usize, connections: usize) -> SingleRows {
    database
        .connect()
        .await
        .batch_execute(
            "CREATE TABLE single_events (
                 topic text NOT NULL, event_id text NOT NULL, source text NOT NULL,
                 payload json NOT NULL, received_at timestamptz NOT NULL DEFAULT now(),
                 PRIMARY KEY (topic, event_id))",
        )
        .await
        .expect("table");
    let insert = "INSERT INTO single_events (topic, event_id, source, payload)
                  VALUES ($1, $2, $3, $4::text::json) ON CONFLICT DO NOTHING";
    let left = Arc::new(AtomicUsize::new(events));
    let mut clients = Vec::new();
    for _ in 0..connections {
        let client = database.connect().await;
        let insert = client.prepare(insert).await.expect("prepare");
        clients.push((client, insert));
    }
    let mut tasks: JoinSet<Vec<f64>> = JoinSet::new();
    let begun = Instant::now();
    for (client, insert) in clients {
        let left = Arc::clone(&left);
        tasks.spawn(async move {
            let payload = payload();
            let mut millis = Vec::new();
            while left
                .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1))
                .is_ok()
            {
                let id = Uuid::new_v4().simple().to_string();
                let sent = Instant::now();
                client.execute(&insert, &[&"bench", &id, &"bench", &payload]).await.expect("row");
                millis.push(sent.elapsed().as_secs_f64() * 1_000.0);
            }
            millis
        });
    }
    let mut millis: Vec<f64> = tasks.join_all().await.concat();
    let rate = events as f64 / begun.elapsed().as_secs_f64();
    millis.sort_by(f64::total_cmp);
    SingleRows { rate, p50_millis: millis[millis.len() / 2] }
}
