//! Disks whose writes fail, simulated with strace.

use std::{
    io::{BufRead, BufReader},
    process::{Child, Command, Stdio},
};

use event_aggregator::proto::v1::PublishStatus::*;
use testkit::postgres::Server;

use crate::harness::*;

/// Lets fsync calls of some processes fail; `when` selects them in strace's syntax.
fn fail_flushes(pids: &[i32], when: &str) -> Child {
    let inject = format!("inject=fdatasync,fsync:error=EIO{when}");
    let mut strace = Command::new("strace");
    strace.args(["-f", "-e", "trace=fdatasync,fsync", "-e", &inject]);
    for pid in pids {
        strace.args(["-p", &pid.to_string()]);
    }
    let mut tracing = strace.stderr(Stdio::piped()).spawn().expect("strace is installed");
    let mut told = BufReader::new(tracing.stderr.take().expect("piped")).lines();
    for _ in pids {
        let line = told.next().expect("a line").expect("text");
        assert!(line.contains("attached"), "it must be allowed to trace others: {line}");
    }
    // The output must be drained, or strace would block.
    std::thread::spawn(move || told.for_each(drop));
    tracing
}

#[tokio::test(flavor = "multi_thread")]
async fn postgresql_fsync_failure_keeps_counts_exact() {
    let starting = tokio::task::spawn_blocking(|| Server::start("-c shared_buffers=32MB"));
    let database_server = starting.await.expect("started");
    let server = TestServer::on(TestDatabase::on(&database_server).await).await;
    let mut client = server.client().await;
    publish(&mut client, vec![event("t", "before")]).await;

    // The next WAL flush fails, so the server panics and restarts. The commit may or may not be in
    // the WAL that it recovers from.
    let sql = "SELECT pid FROM pg_stat_activity
               WHERE backend_type = 'walwriter' OR application_name = 'event-aggregator'";
    let rows = connect(&server.database.url_text()).await.query(sql, &[]).await.expect("pids");
    let pids: Vec<i32> = rows.iter().map(|row| row.get(0)).collect();
    let mut tracing = fail_flushes(&pids, "");

    let events = vec![event("t", "before"), event("t", "new"), event("t", "new")];
    assert_eq!(verdicts(&mut client, events).await, [Duplicate, Accepted, Duplicate]);
    tracing.wait().expect("traced processes exited");
    let log = std::fs::read_to_string(database_server.folder.join("log")).expect("log");
    assert!(log.contains("PANIC"), "{log}");
    assert_eq!(counters(&mut client).await, [4, 2, 2, 0]);
    assert_eq!(server.stored().await, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn sqlite_fsync_failure_keeps_counts_exact() {
    let database = TestDatabase::new(Backend::Sqlite).await;
    let mut service = serve(&database.url_text());
    let mut client = connect_to(service.address).await;
    publish(&mut client, vec![event("t", "before")]).await;

    let mut tracing = fail_flushes(&[service.id() as i32], ":when=1..3");
    let events = vec![event("t", "before"), event("t", "new"), event("t", "new")];
    assert_eq!(verdicts(&mut client, events).await, [Duplicate, Accepted, Duplicate]);
    assert_eq!(counters(&mut client).await, [4, 2, 2, 0]);
    service.signal("KILL");
    service.wait();
    tracing.wait().expect("traced process exited");

    // What was acknowledged is on the disk.
    let service = serve(&database.url_text());
    assert_eq!(counters(&mut connect_to(service.address).await).await, [4, 2, 2, 0]);
    assert_eq!(database.number("SELECT count(*) FROM processed_events").await, 2);
}
