//! PostgreSQL with a synchronous standby: nothing is acknowledged that only one server has, and the
//! service continues after a failover.

use std::sync::Arc;

use event_aggregator::{
    config::Database,
    proto::v1::{Event, PublishStatus, PublishStatus::*},
};
use testkit::postgres::Server;
use tokio::task::JoinHandle;

use crate::harness::*;

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    tokio::task::spawn_blocking(work).await.expect("done")
}

fn publishing(mut client: Client, events: Vec<Event>) -> JoinHandle<Vec<PublishStatus>> {
    tokio::spawn(async move { verdicts(&mut client, events).await })
}

/// A process that waits for the standby, other than `others`.
async fn waiting_now(asking: &tokio_postgres::Client, others: &[i32]) -> Option<i32> {
    let sql = "SELECT pid FROM pg_stat_activity
               WHERE datname = current_database() AND wait_event = 'SyncRep' AND pid <> ALL($1)";
    let row = asking.query_opt(sql, &[&others]).await.expect("activity");
    row.map(|row| row.get(0))
}

/// Waits for such a process. Fails if the publish returns first.
async fn waiting(
    database: &TestDatabase,
    others: &[i32],
    answer: &mut JoinHandle<Vec<PublishStatus>>,
) -> i32 {
    let asking = connect(&database.url_text()).await;
    loop {
        if let Some(pid) = waiting_now(&asking, others).await {
            return pid;
        }
        if answer.is_finished() {
            panic!("the commit does not wait for the standby: {:?}", answer.await);
        }
    }
}

/// Commits until a commit waits for the standby: the server applies the setting some time after the
/// session that set it. Returns the process, which continues to wait.
async fn until_commits_wait(database: &TestDatabase) -> i32 {
    let asking = connect(&database.url_text()).await;
    let committing = connect(&database.url_text()).await;
    tokio::spawn(async move {
        let commit = "SELECT pg_logical_emit_message(true, 'test', '')";
        while committing.execute(commit, &[]).await.is_ok() {}
    });
    loop {
        if let Some(pid) = waiting_now(&asking, &[]).await {
            return pid;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn acknowledged_events_are_on_the_standby() {
    let database_server = blocking(|| Server::start("-c fsync=off")).await;
    let server = TestServer::on(TestDatabase::on(&database_server).await).await;
    let mut client = server.client().await;
    publish(&mut client, vec![event("t", "before")]).await;
    let admin = connect(&server.database.url_text()).await;

    database_server.set("synchronous_standby_names = 'ghost'").await;
    let probe = until_commits_wait(&server.database).await;
    let events = vec![event("t", "new"), event("t", "before"), event("t", "new")];
    let mut answer = publishing(client.clone(), events);
    // Its process is terminated: the commit is on this server only.
    let ended = waiting(&server.database, &[probe], &mut answer).await;
    admin.execute("SELECT pg_terminate_backend($1)", &[&ended]).await.expect("terminate");
    // The retry finds it there, and still waits. When the wait is cancelled, PostgreSQL confirms
    // the commit anyway.
    let cancelled = waiting(&server.database, &[probe, ended], &mut answer).await;
    admin.execute("SELECT pg_cancel_backend($1)", &[&cancelled]).await.expect("cancel");
    // This one times out, and the retry still waits.
    let given_up = waiting(&server.database, &[probe, ended, cancelled], &mut answer).await;
    let blocked = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()
                   AND wait_event_type = 'Lock'";
    while server.database.number(blocked).await == 0 {
        assert!(!answer.is_finished(), "the abandoned commit no longer waits");
    }
    assert_eq!(waiting(&server.database, &[probe], &mut answer).await, given_up);
    assert!(!answer.is_finished());

    database_server.set("synchronous_standby_names = ''").await;
    assert_eq!(answer.await.expect("an answer"), [Accepted, Duplicate, Duplicate]);
    assert_eq!(counters(&mut client).await, [4, 2, 2, 0]);
    assert_eq!(server.stored().await, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn service_follows_a_failover() {
    let primary = Arc::new(blocking(|| Server::start("-c fsync=off")).await);
    let made = Arc::clone(&primary);
    let standby = blocking(move || made.standby()).await;
    primary.set("synchronous_standby_names = '*'").await;
    let mut database = TestDatabase::on(&primary).await;

    // The standby is listed first, and is skipped until it accepts writes.
    let url = database.url_text();
    let host = |url: &str| {
        let (_, place) = url.split_once('@').expect("a user");
        place.split_once('/').expect("a host").0.to_owned()
    };
    let both = format!("{},{}", host(&standby.url), host(&url));
    let through_both = Database::Postgres(url.replace(&host(&url), &both));
    database.url = through_both;
    let (address, _stop, _running) = launch_on(&database.url).await;
    let mut client = connect_to(address).await;
    let all = |range: std::ops::Range<i32>| -> Vec<Event> {
        range.map(|n| event(&format!("t{}", n % 9), &n.to_string())).collect()
    };
    publish(&mut client, all(0..100)).await;
    assert_eq!(counters(&mut client).await, [100, 100, 0, 0]);

    // The primary is demoted: it rejects writes from now on.
    primary.set("default_transaction_read_only = 'on'").await;
    let answer = publishing(client.clone(), all(50..150));
    blocking(move || standby.run("pg_ctl", &["promote", "-w", "-D", "data"])).await;
    let verdicts = answer.await.expect("an answer");
    assert_eq!(verdicts[..50], [Duplicate; 50]);
    assert_eq!(verdicts[50..], [Accepted; 50]);
    assert_eq!(primary_events(&url).await, 100, "it went to the other one");
    assert_eq!(counters(&mut client).await, [200, 150, 50, 0]);
}

async fn primary_events(url: &str) -> i64 {
    let sql = "SELECT count(*) FROM processed_events";
    connect(url).await.query_one(sql, &[]).await.expect("count").get(0)
}
