//! One event that the store fails to commit on every attempt: only it gets INTERNAL, other events
//! of its batch and lane are stored, and the log names it.

use std::{
    fs,
    io::{Seek, SeekFrom, Write},
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use event_aggregator::proto::v1::{Event, PublishRequest, PublishResponse, PublishStatus::*};
use testkit::{postgres::Server, process::Service};
use tonic::Code;

use crate::harness::*;

/// A service with its log in a file.
fn start(database: &TestDatabase, log: &Path) -> Service {
    Service::run(
        wrapper("sh")
            .args(["-c", "exec 2>\"$0\"; exec \"$@\""])
            .args([log.to_str().expect("UTF-8"), PROGRAM])
            .args(["serve", "--listen", "127.0.0.1:0", "--database-url", &database.url_text()]),
    )
}

/// Publishes events with one at fault and checks the results, long before commits time out.
async fn publish_around(client: &mut Client, events: Vec<Event>, at_fault: usize) {
    let begun = Instant::now();
    let request = PublishRequest { events, allow_partial: false };
    let response: PublishResponse = client.publish(request).await.expect("an answer").into_inner();
    assert!(begun.elapsed() < Duration::from_secs(40), "others wait for it");
    for (index, result) in response.results.iter().enumerate() {
        let expected = if index == at_fault { Rejected } else { Accepted };
        assert_eq!(result.status(), expected, "{index} {result:?}");
    }
    let error = response.results[at_fault].error.as_ref().expect("an error");
    assert_eq!(error.code, i32::from(Code::Internal));
}

/// Text that no database can compress much.
fn incompressible(bytes: usize) -> String {
    let numbers = (0..bytes as u64 / 16).map(|n| n.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    let text: String = numbers
        .map(|n| format!("{:016x}", (n ^ n >> 29).wrapping_mul(0xbf58_476d_1ce4_e5b9)))
        .collect();
    format!(r#"{{"x":"{text}"}}"#)
}

fn around(bad: &str, round: &str) -> Vec<Event> {
    let mut events: Vec<Event> = (0..20).map(|n| event("t", &format!("{round}-{n}"))).collect();
    events[7] = event("t", bad);
    events
}

fn assert_log_names(log: &Path, event_id: &str) {
    let log = fs::read_to_string(log).expect("log");
    let lines: Vec<&str> = log.lines().filter(|line| line.contains("skipping an event")).collect();
    assert!(!lines.is_empty(), "{log}");
    assert!(
        lines.iter().all(|line| line.contains(event_id) && line.contains("\"t\"")),
        "{lines:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn corrupt_sqlite_page_fails_one_event() {
    let database = TestDatabase::new(Backend::Sqlite).await;
    let log = database.path("log");
    let mut service = start(&database, &log);
    let mut client = connect_to(service.address).await;
    let payload = incompressible(100_000);
    publish(&mut client, vec![event_with("t", "damaged", &payload), event("t", "whole")]).await;
    service.signal("TERM");
    service.wait();

    // The first bytes of an overflow page lead to the next one.
    let path = database.path("events.db");
    let content = fs::read(&path).expect("the file");
    let middle = &payload.as_bytes()[50_000..50_064];
    let at = content.windows(middle.len()).position(|bytes| bytes == middle).expect("the payload");
    let mut file = fs::OpenOptions::new().write(true).open(&path).expect("the file");
    file.seek(SeekFrom::Start((at / 4_096 * 4_096) as u64)).expect("seek");
    file.write_all(&[0xff; 4]).expect("write");
    drop(file);

    let service = start(&database, &log);
    let mut client = connect_to(service.address).await;
    publish_around(&mut client, around("damaged", "a"), 7).await;
    assert_eq!(verdicts(&mut client, vec![event("t", "whole")]).await, [Duplicate]);
    assert_log_names(&log, "damaged");
    assert_eq!(counters(&mut client).await, [22, 21, 1, 0]);
    assert_eq!(database.number("SELECT count(*) FROM processed_events").await, 21);
}

#[tokio::test(flavor = "multi_thread")]
async fn corrupt_postgresql_row_fails_one_event() {
    let starting = tokio::task::spawn_blocking(|| Server::start("-c fsync=off"));
    let database_server = Arc::new(starting.await.expect("started"));
    let database = TestDatabase::on(&database_server).await;
    let log = database.path("log");
    let service = start(&database, &log);
    let mut client = connect_to(service.address).await;
    let damaged = event_with("t", "damaged", &incompressible(100_000));
    publish(&mut client, vec![damaged, event("t", "whole")]).await;

    // The TOAST table loses its rows.
    let asking = connect(&database.url_text()).await;
    asking.batch_execute("CHECKPOINT").await.expect("checkpoint");
    let sql = "SELECT pg_relation_filepath(reltoastrelid) FROM pg_class WHERE relname = 'processed_events'";
    let file: String = asking.query_one(sql, &[]).await.expect("the file").get(0);
    let file = database_server.folder.join("data").join(file);
    fs::OpenOptions::new().write(true).open(file).expect("the file").set_len(0).expect("cut");
    let restarting = Arc::clone(&database_server);
    tokio::task::spawn_blocking(move || restarting.kill_and_restart()).await.expect("restarted");

    publish_around(&mut client, around("damaged", "a"), 7).await;
    assert_eq!(verdicts(&mut client, vec![event("t", "whole")]).await, [Duplicate]);
    assert_log_names(&log, "damaged");
    assert_eq!(counters(&mut client).await, [22, 21, 1, 0]);
    assert_eq!(database.number("SELECT count(*) FROM processed_events").await, 21);
}

#[tokio::test(flavor = "multi_thread")]
async fn raising_trigger_fails_one_event() {
    let database = TestDatabase::new(Backend::Postgres).await;
    let log = database.path("log");
    let service = start(&database, &log);
    let mut client = connect_to(service.address).await;
    let trigger = "
        CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS
            $$ BEGIN RAISE 'not this one'; END $$;
        CREATE TRIGGER refuse BEFORE INSERT ON processed_events
            FOR EACH ROW WHEN (NEW.event_id = 'bad') EXECUTE FUNCTION refuse()";
    database.execute(trigger).await;
    publish_around(&mut client, around("bad", "a"), 7).await;
    assert_log_names(&log, "bad");
    assert_eq!(counters(&mut client).await, [19, 19, 0, 0]);

    // If all events fail, none of them is at fault: they are stored after the repair.
    database.execute("ALTER TABLE batch_ledger RENAME COLUMN events TO counted").await;
    let mut caller = client.clone();
    let events: Vec<Event> = (0..40).map(|n| event("t", &format!("b-{n}"))).collect();
    let publishing = tokio::spawn(async move { verdicts(&mut caller, events).await });
    let failing = || fs::read_to_string(&log).expect("log").matches("retrying").count() > 6;
    while !failing() {
        tokio::task::yield_now().await;
    }
    assert!(!publishing.is_finished());
    database.execute("ALTER TABLE batch_ledger RENAME COLUMN counted TO events").await;
    assert_eq!(publishing.await.expect("an answer"), [Accepted; 40]);
    assert_eq!(counters(&mut client).await, [59, 59, 0, 0]);
}
