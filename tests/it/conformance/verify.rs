//! `verify`: the counters compared with the rows, bypassing the service.

use std::process::Output;

use serde_json::Value;

use crate::harness::*;

on_both_stores!(
    verify_passes_during_ingest,
    verify_reports_tampering,
    verify_does_not_modify_other_schemas,
);

async fn verify(database: &TestDatabase, output: &str) -> Output {
    let mut command = program();
    command.args(["verify", "-o", output, "--database-url", &database.url_text()]);
    tokio::task::spawn_blocking(move || command.output().expect("run")).await.expect("join")
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).expect("UTF-8")
}

async fn simulate(server: &TestServer, events: &str) -> std::process::Child {
    program()
        .args(["publish", "--simulate", events, "--duplicates", "0.3", "-o", "json"])
        .args(["--addr", &server.address.to_string()])
        .stdout(std::process::Stdio::null())
        .spawn()
        .expect("spawn")
}

async fn verify_passes_during_ingest(backend: Backend) {
    let server = TestServer::start(backend).await;
    let mut publishing = simulate(&server, "20000").await;
    loop {
        let done = publishing.try_wait().expect("wait");
        let output = verify(&server.database, "json").await;
        assert_eq!(output.status.code(), Some(0), "{output:?}");
        if let Some(status) = done {
            assert!(status.success());
            let report: Value = serde_json::from_slice(&output.stdout).expect("JSON");
            assert_eq!((&report["received"], &report["events"]), (&20_000.into(), &14_000.into()));
            break;
        }
    }
    let database = server.stop().await;
    let output = verify(&database, "table").await;
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert!(text(&output.stdout).contains("OK: 5 topics"), "{output:?}");
}

async fn verify_reports_tampering(backend: Backend) {
    let server = TestServer::start(backend).await;
    let mut client = server.client().await;
    for topic in ["a", "b", "c"] {
        publish(&mut client, vec![event(topic, "1"), event(topic, "2"), event(topic, "3")]).await;
    }
    let database = server.stop().await;
    let wrong = [
        (
            "UPDATE audit_stats SET unique_processed = unique_processed + 1,
                                    received = received + 1 WHERE topic = 'a'",
            "unique_processed of topic | a ",
        ),
        ("DELETE FROM processed_events WHERE topic = 'b' AND event_id = '2'", "events of lane"),
        ("DELETE FROM audit_stats WHERE topic = 'c'", "unique_processed of topic | c "),
        ("UPDATE lanes SET head = head + 7", "head of lane"),
    ];
    for (tamper, named) in wrong {
        database.execute(tamper).await;
        let output = verify(&database, "table").await;
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        assert!(text(&output.stdout).contains(named), "{named}: {}", text(&output.stdout));
    }
    let report = verify(&database, "json").await;
    let report: Value = serde_json::from_slice(&report.stdout).expect("JSON");
    assert_eq!(report["ok"], false);
    let of_b = report["differences"].as_array().expect("array").iter().find(|d| d["of"] == "b");
    assert_eq!(
        (&of_b.expect("b")["recorded"], &of_b.expect("b")["actual"]),
        (&3.into(), &2.into())
    );

    if let Backend::Postgres = backend {
        // With another number of lanes, new events of a topic would go to another lane.
        database.execute("INSERT INTO lanes (lane) SELECT generate_series(4, 12)").await;
        let output = verify(&database, "table").await;
        assert!(text(&output.stdout).contains("lane of topic"), "{}", text(&output.stdout));
        database.execute("DELETE FROM lanes WHERE lane > 3").await;
    }

    // All differences are counted, and some are listed.
    let many = "INSERT INTO audit_stats (topic, received, unique_processed, duplicate_dropped,
                                         conflicts, last_received_at)
                SELECT 'no-' || topic || event_id || x, 1, 1, 0, 0, received_at
                FROM processed_events,
                     (SELECT 1 AS x UNION SELECT 2 UNION SELECT 3 UNION SELECT 4) AS four";
    database.execute(many).await;
    let report = verify(&database, "json").await;
    let report: Value = serde_json::from_slice(&report.stdout).expect("JSON");
    assert_eq!(report["differences"].as_array().expect("array").len(), 20);
    assert!(report["difference_count"].as_i64().expect("number") > 32, "{report}");
}

async fn verify_does_not_modify_other_schemas(backend: Backend) {
    let database = TestDatabase::new(backend).await;
    let output = verify(&database, "json").await;
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(text(&output.stderr).contains("--database-url"), "{output:?}");
    if let Backend::Sqlite = backend {
        assert!(!database.path("events.db").exists(), "nothing is made");
    }

    let database = TestServer::on(database).await.stop().await;
    database.execute("DELETE FROM refinery_schema_history WHERE version > 1").await;
    let older = verify(&database, "json").await;
    assert_eq!(older.status.code(), Some(1), "{older:?}");
    assert!(text(&older.stderr).contains("event-aggregator serve"), "{older:?}");

    database.execute("UPDATE refinery_schema_history SET version = 1000").await;
    let newer = verify(&database, "json").await;
    assert_eq!(newer.status.code(), Some(1), "{newer:?}");
    assert!(text(&newer.stderr).contains("upgrade event-aggregator"), "{newer:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn verify_reports_a_corrupt_file() {
    let server = TestServer::start(Backend::Sqlite).await;
    publish(&mut server.client().await, vec![event("t", "1")]).await;
    let database = server.stop().await;
    let root = "SELECT rootpage FROM sqlite_schema WHERE name = 'processed_events'";
    let page = (database.number(root).await - 1) as usize * 4_096;
    let path = database.path("events.db");
    let mut file = std::fs::read(&path).expect("file");
    // The number of fragmented free bytes of the page, which reads do not need.
    file[page + 7] ^= 1;
    std::fs::write(&path, file).expect("write");
    let output = verify(&database, "json").await;
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(text(&output.stderr).contains("the file is corrupt"), "{output:?}");
}
