//! PostgreSQL servers in trouble: frozen processes, blocking sessions, exhausted connections. Calls
//! return in bounded time, and afterwards every event is counted once.

use std::sync::Arc;

use event_aggregator::{
    config::Database,
    proto::v1::{Event, ListEventsRequest, PublishStatus::*},
};
use testkit::{
    postgres::Server,
    process::signal,
    proxy::{Proxy, Target},
};
use tonic::Code;

use crate::harness::*;

async fn start(settings: &'static str) -> Arc<Server> {
    let starting = tokio::task::spawn_blocking(move || Server::start(settings));
    Arc::new(starting.await.expect("started"))
}

/// Publishes in the background.
fn publishing(
    mut client: Client,
    events: Vec<Event>,
) -> tokio::task::JoinHandle<Vec<event_aggregator::proto::v1::PublishStatus>> {
    tokio::spawn(async move { verdicts(&mut client, events).await })
}

/// Waits for a service session that is blocked on a lock, other than `known`. Returns its process
/// id.
async fn blocked(database: &TestDatabase, known: i32) -> i32 {
    let asking = connect(&database.url_text()).await;
    let sql = "SELECT pid FROM pg_stat_activity WHERE datname = current_database()
               AND application_name = 'event-aggregator' AND wait_event_type = 'Lock'
               AND pid <> $1";
    loop {
        if let Some(row) = asking.query_opt(sql, &[&known]).await.expect("activity") {
            return row.get(0);
        }
    }
}

/// Polls `health` until it returns this status.
async fn wait_until_healthy(server: &TestServer, healthy: bool) {
    let address = server.address.to_string();
    let asking = move || {
        let health = || program().args(["health", "--addr", &address]).output().expect("health");
        testkit::wait_until(|| health().status.success() == healthy);
    };
    tokio::task::spawn_blocking(asking).await.expect("asked");
}

#[tokio::test(flavor = "multi_thread")]
async fn orphaned_statement_keeps_counts_exact() {
    let database_server = start("-c fsync=off").await;
    let database = TestDatabase::on(&database_server).await;
    let proxy = Proxy::start(Target::of(&database.url_text())).await;
    let (address, _stop, _running) =
        launch_on(&Database::Postgres(proxy.url(&database.url_text()))).await;
    let mut client = connect_to(address).await;
    publish(&mut client, vec![event("t", "before")]).await;

    // A commit waits for its lane, and its process freezes. Then its connection breaks. The retry
    // overtakes it, and the frozen commit finds its batch in the ledger.
    let blocker = block_lanes(&database).await;
    let answer = publishing(client.clone(), vec![event("t", "1"), event("t", "2")]);
    let frozen = blocked(&database, 0).await;
    signal("STOP", &[frozen]);
    proxy.hang_up();
    blocker.batch_execute("ROLLBACK").await.expect("unblock");
    assert_eq!(answer.await.expect("an answer"), [Accepted, Accepted]);
    signal("CONT", &[frozen]);
    let is_there = format!("SELECT count(*) FROM pg_stat_activity WHERE pid = {frozen}");
    while database.number(&is_there).await == 1 {}
    assert_eq!(counters(&mut client).await, [3, 3, 0, 0]);

    // This one holds its lane and waits for the counters. The retry waits for it.
    let counted = "BEGIN; SELECT * FROM audit_stats FOR UPDATE";
    blocker.batch_execute(counted).await.expect("counters");
    let answer = publishing(client.clone(), vec![event("t", "3"), event("t", "4")]);
    let frozen = blocked(&database, 0).await;
    signal("STOP", &[frozen]);
    proxy.hang_up();
    blocker.batch_execute("ROLLBACK").await.expect("unblock");
    blocked(&database, frozen).await;
    assert!(!answer.is_finished());
    signal("CONT", &[frozen]);
    assert_eq!(answer.await.expect("an answer"), [Accepted, Accepted]);
    assert_eq!(counters(&mut client).await, [5, 5, 0, 0]);
    assert_eq!(database.number("SELECT count(*) FROM processed_events").await, 5);
}

#[tokio::test(flavor = "multi_thread")]
async fn frozen_server_is_detected_and_waited_for() {
    let database_server = start("-c fsync=off").await;
    let server = TestServer::on(TestDatabase::on(&database_server).await).await;
    let mut client = server.client().await;
    publish(&mut client, vec![event("t", "before")]).await;
    counters(&mut client).await;
    let pids = "SELECT pid FROM pg_stat_activity WHERE application_name = 'event-aggregator'";
    let rows = connect(&server.database.url_text()).await.query(pids, &[]).await.expect("pids");
    let mut all: Vec<i32> = rows.iter().map(|row| row.get(0)).collect();
    all.push(database_server.pid());

    signal("STOP", &all);
    let answer = publishing(client.clone(), vec![event("t", "new")]);
    wait_until_healthy(&server, false).await;
    assert!(!answer.is_finished());
    signal("CONT", &all);
    assert_eq!(answer.await.expect("an answer"), [Accepted]);
    wait_until_healthy(&server, true).await;
    assert_eq!(counters(&mut client).await, [2, 2, 0, 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn blocking_sessions_keep_counts_exact() {
    let server = TestServer::start(Backend::Postgres).await;
    let mut client = server.client().await;
    publish(&mut client, vec![event("t", "before")]).await;
    let other = connect(&server.database.url_text()).await;

    // A deadlock. The session that checks first is cancelled, and that is the service's.
    let counted = "BEGIN; SET LOCAL deadlock_timeout = '1min';
                   SELECT * FROM audit_stats WHERE topic = 't' FOR UPDATE";
    other.batch_execute(counted).await.expect("counters");
    let answer = publishing(client.clone(), vec![event("t", "1"), event("t", "before")]);
    blocked(&server.database, 0).await;
    other.batch_execute("SELECT * FROM lanes FOR UPDATE; ROLLBACK").await.expect("lanes");
    assert_eq!(answer.await.expect("an answer"), [Accepted, Duplicate]);

    // A table lock of a session that is then idle. Reads fail, commits wait, and the database ends
    // the session.
    let lock = "SET idle_in_transaction_session_timeout = '6s';
                BEGIN; LOCK processed_events IN ACCESS EXCLUSIVE MODE";
    other.batch_execute(lock).await.expect("lock");
    let answer = publishing(client.clone(), vec![event("t", "2"), event("u", "1")]);
    let status = client.list_events(ListEventsRequest::default()).await.expect_err("locked");
    assert_eq!(status.code(), Code::Unavailable, "{status:?}");
    assert_eq!(answer.await.expect("an answer"), [Accepted, Accepted]);
    assert_eq!(counters(&mut client).await, [5, 4, 1, 0]);
    assert_eq!(server.stored().await, 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn exhausted_connection_limit_is_waited_for() {
    let database_server = start("-c fsync=off").await;
    let database = TestDatabase::on(&database_server).await;
    let url = database.url_text();
    let (_, name) = url.rsplit_once('/').expect("a database");
    // Connection limits do not apply to superusers.
    let owned = format!("CREATE ROLE app LOGIN; ALTER DATABASE {name} OWNER TO app");
    database.execute(&owned).await;
    let url = Database::Postgres(url.replace("//postgres@", "//app@"));
    let limit = |sessions: i32| format!("ALTER ROLE app CONNECTION LIMIT {sessions}");
    let (address, _stop, _running) = launch_on(&url).await;
    let mut client = connect_to(address).await;
    publish(&mut client, vec![event("t", "before")]).await;
    counters(&mut client).await;

    database.execute(&limit(0)).await;
    let cut = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
               WHERE usename = 'app'";
    database.number(cut).await;
    let answer = publishing(client.clone(), vec![event("t", "new")]);
    while client
        .list_events(ListEventsRequest::default())
        .await
        .map_err(|status| status.code())
        .err()
        != Some(Code::Unavailable)
    {}
    // Startup waits for a free connection as well.
    let starting = tokio::spawn(async move { launch_on(&url).await });
    assert!(!answer.is_finished());
    database.execute(&limit(-1)).await;
    assert_eq!(answer.await.expect("an answer"), [Accepted]);
    assert_eq!(counters(&mut client).await, [2, 2, 0, 0]);

    starting.await.expect("started");
}

/// Sessions end while their query for too many originals is cancelled.
#[tokio::test(flavor = "multi_thread")]
async fn sessions_lost_during_cancellation_are_replaced() {
    const LARGE: usize = 12;
    let server = TestServer::start(Backend::Postgres).await;
    let mut client = server.client().await;
    let large = format!(r#"{{"x":"{}"}}"#, "x".repeat(1_000_000));
    for n in 0..LARGE {
        publish(&mut client, vec![event_with("t", &n.to_string(), &large)]).await;
    }
    let asking = connect(&server.database.url_text()).await;
    let end = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
               WHERE datname = current_database() AND pid <> pg_backend_pid()";
    for _ in 0..4 {
        let repeats = || (0..LARGE).map(|n| event("t", &n.to_string())).collect();
        let waiting: Vec<_> = (0..4).map(|_| publishing(client.clone(), repeats())).collect();
        while !waiting.iter().any(tokio::task::JoinHandle::is_finished) {
            asking.query_one(end, &[]).await.expect("ended");
            tokio::time::sleep(std::time::Duration::from_millis(200)).await;
        }
        for verdicts in waiting {
            assert_eq!(verdicts.await.expect("an answer"), [Conflict; LARGE]);
        }
    }
    assert_eq!(verdicts(&mut client, vec![event("t", "new")]).await, [Accepted]);
}
