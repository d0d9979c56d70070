//! The program as a process: startup, startup errors, shutdown, kill.

use std::{
    io::{BufRead, BufReader},
    net::TcpListener,
    process::{Command, Stdio},
};

use event_aggregator::proto::v1::Event;
use testkit::{postgres, process::Service, wait_until};

use crate::harness::*;

fn events(count: usize) -> Vec<Event> {
    (0..count).map(|n| event(&format!("t{}", n % 9), &n.to_string())).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn sigterm_shuts_down_cleanly() {
    for backend in [Backend::Sqlite, Backend::Postgres] {
        for signal in ["TERM", "INT"] {
            let database = TestDatabase::new(backend).await;
            let mut service = serve(&database.url_text());
            let mut client = connect_to(service.address).await;
            publish(&mut client, events(100)).await;
            service.signal(signal);
            assert_eq!(service.wait(), Some(0), "{backend:?} {signal}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn kill_loses_no_acknowledged_event() {
    for backend in [Backend::Sqlite, Backend::Postgres] {
        let database = TestDatabase::new(backend).await;
        let mut acknowledged = 0;
        let all = events(4_000);
        for _ in 0..3 {
            let mut service = serve(&database.url_text());
            let mut client = connect_to(service.address).await;
            let (enough, mut counted) = tokio::sync::mpsc::channel(1);
            let batches: Vec<Vec<Event>> = all.chunks(20).map(<[Event]>::to_vec).collect();
            let publishing = tokio::spawn(async move {
                let mut unique = 0;
                for (n, batch) in batches.into_iter().enumerate() {
                    match try_publish(&mut client, batch).await {
                        Ok(response) => unique += response.unique_processed,
                        Err(_) => break,
                    }
                    if n == 100 {
                        let _ = enough.try_send(());
                    }
                }
                unique
            });
            counted.recv().await;
            service.signal("KILL");
            acknowledged += publishing.await.expect("publishing");
            service.wait();
        }

        let service = serve(&database.url_text());
        let mut client = connect_to(service.address).await;
        let [received, unique, duplicates, _] = counters(&mut client).await;
        assert_eq!(received, unique + duplicates);
        assert_eq!(unique, database.number("SELECT count(*) FROM processed_events").await);
        // Each kill leaves at most one batch that is stored and not acknowledged.
        assert!((acknowledged..=acknowledged + 60).contains(&unique), "{acknowledged} {unique}");
        for batch in all.chunks(1_000) {
            publish(&mut client, batch.to_vec()).await;
        }
        assert_eq!(counters(&mut client).await[1], 4_000);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn disk_failure_acknowledges_nothing() {
    let database = TestDatabase::new(Backend::Sqlite).await;
    let log = database.path("log");
    std::fs::write(&log, " ".repeat(10_000)).expect("log");
    // A file size limit is set later; with SIGXFSZ ignored, writes fail. The log cannot be written
    // then, either.
    let service = Service::run(
        wrapper("sh")
            .args(["-c", "trap '' XFSZ; exec 2>>\"$0\"; exec \"$@\""])
            .args([log.to_str().expect("UTF-8"), PROGRAM])
            .args(["serve", "--listen", "127.0.0.1:0", "--database-url", &database.url_text()]),
    );
    let limit = |bytes: &str| {
        let pid = service.id().to_string();
        let fsize = format!("--fsize={bytes}:");
        let status = Command::new("prlimit").args(["--pid", &pid, &fsize]).status();
        assert!(status.expect("prlimit").success());
    };
    let is_healthy = || {
        let address = service.address.to_string();
        let mut health = program();
        health.args(["health", "--addr", &address]).stderr(Stdio::null()).stdout(Stdio::null());
        health.status().expect("health").success()
    };
    let mut client = connect_to(service.address).await;
    let mut sent = events(20);
    publish(&mut client, sent.drain(..10).collect()).await;

    limit("4096");
    sent.push(events(1).remove(0));
    let mut caller = client.clone();
    let publishing = tokio::spawn(async move { publish(&mut caller, sent).await });
    wait_until(|| !is_healthy());
    assert!(!publishing.is_finished());
    limit("unlimited");

    let answer = publishing.await.expect("an answer");
    assert_eq!((answer.unique_processed, answer.duplicate_dropped), (10, 1));
    assert_eq!(counters(&mut client).await, [21, 20, 1, 0]);
    assert_eq!(database.number("SELECT count(*) FROM processed_events").await, 20);
    wait_until(is_healthy);
}

#[tokio::test(flavor = "multi_thread")]
async fn publish_reconnects_after_a_kill() {
    for backend in [Backend::Sqlite, Backend::Postgres] {
        let database = TestDatabase::new(backend).await;
        let url = database.url_text();
        let mut service = serve(&url);
        let address = service.address.to_string();
        let publisher = program()
            .args(["publish", "--simulate", "100000", "-o", "json", "--addr", &address])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("spawn");
        let mut client = connect_to(service.address).await;
        while counters(&mut client).await[0] < 5_000 {}
        service.signal("KILL");
        service.wait();
        let service = Service::run(
            program().args(["serve", "--listen", &address]).args(["--database-url", &url]),
        );

        let output = publisher.wait_with_output().expect("output");
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{stderr}");
        assert!(stderr.contains("interrupted"), "{stderr}");
        let [received, unique, duplicates, conflicts] =
            counters(&mut connect_to(service.address).await).await;
        assert_eq!([unique, conflicts], [70_000, 0]);
        assert!(received >= 100_000 && received == unique + duplicates);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn stats_watch_reconnects_after_a_restart() {
    let database = TestDatabase::new(Backend::Sqlite).await;
    let url = database.url_text();
    let mut service = serve(&url);
    let address = service.address.to_string();
    let mut watching = program()
        .args(["stats", "--watch", "20ms", "--addr", &address])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("spawn");
    let lines = BufReader::new(watching.stdout.take().expect("piped")).lines();
    let mut samples = lines.map(|line| -> serde_json::Value {
        serde_json::from_str(&line.expect("line")).expect("JSON")
    });
    let first = samples.next().expect("a sample");
    assert!(first["received_per_second"].is_null(), "{first}");
    publish(&mut connect_to(service.address).await, vec![event("t", "1"), event("t", "1")]).await;
    let rising = |sample: &serde_json::Value| sample["received_per_second"].as_f64() > Some(0.0);
    let rise = samples.find(rising).expect("a sample");
    assert_eq!((&rise["received"], &rise["duplicate_dropped"]), (&2.into(), &1.into()));
    assert!(rise["duplicates_per_second"].as_f64() > Some(0.0), "{rise}");

    service.signal("KILL");
    service.wait();
    let mut told = BufReader::new(watching.stderr.take().expect("piped")).lines();
    let away = told.next().expect("a line").expect("text");
    assert!(away.contains("unavailable"), "{away}");
    let service = serve_at(&address, &url);
    publish(&mut connect_to(service.address).await, vec![event("t", "2")]).await;
    samples.find(|sample| sample["received"] == 3).expect("a sample");

    let interrupt = format!("kill -INT {}", watching.id());
    assert!(Command::new("sh").args(["-c", &interrupt]).status().expect("kill").success());
    assert_eq!(watching.wait().expect("wait").code(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn demo_shows_events_and_cleans_up() {
    let folder = tempfile::tempdir().expect("temporary folder");
    let mut command = program();
    command.args(["demo", "--listen", "127.0.0.1:0", "--rate", "1000"]);
    command.env("TMPDIR", folder.path()).stdout(Stdio::piped());
    let mut demo = command.spawn().expect("spawn");
    let mut told = BufReader::new(demo.stdout.take().expect("piped")).lines();
    let banner = told.next().expect("a banner").expect("text");
    let address = banner.rsplit(' ').next().expect("an address").parse().expect("an address");
    let mut client = connect_to(address).await;
    while counters(&mut client).await[2] < 10 {}
    drop(client);
    let interrupt = format!("kill -INT {}", demo.id());
    assert!(Command::new("sh").args(["-c", &interrupt]).status().expect("kill").success());
    assert_eq!(demo.wait().expect("wait").code(), Some(0));
    let rest: Vec<_> = told.map(|line| line.expect("text")).collect();
    assert!(rest.iter().any(|line| line.contains("| all")), "{rest:?}");
    assert_eq!(std::fs::read_dir(folder.path()).expect("folder").count(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn three_instances_start_on_an_empty_database() {
    let database = TestDatabase::new(Backend::Postgres).await;
    let url = database.url_text();
    let services: Vec<_> = (0..3)
        .map(|_| {
            let url = url.clone();
            tokio::task::spawn_blocking(move || serve(&url))
        })
        .collect();
    let mut publishing = Vec::new();
    for service in services {
        let service = service.await.expect("started");
        publishing.push(tokio::spawn(async move {
            let mut client = connect_to(service.address).await;
            let mut unique = 0;
            for batch in events(5_000).chunks(100) {
                unique += publish(&mut client, batch.to_vec()).await.unique_processed;
            }
            (unique, service)
        }));
    }
    let mut unique = 0;
    let mut running = Vec::new();
    for publishing in publishing {
        let (stored, service) = publishing.await.expect("no error");
        unique += stored;
        running.push(service);
    }
    assert_eq!(unique, 5_000);
    let mut client = connect_to(running[0].address).await;
    assert_eq!(counters(&mut client).await, [15_000, 5_000, 10_000, 0]);
    let gapless = "SELECT count(*) FROM lanes l
                   WHERE head <> (SELECT count(*) FROM processed_events e WHERE e.lane = l.lane)";
    assert_eq!(database.number(gapless).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn lost_connections_keep_counts_exact() {
    let database = TestDatabase::new(Backend::Postgres).await;
    let server = TestServer::on(database).await;
    let mut client = server.client().await;
    let publishing = tokio::spawn(async move {
        let mut totals = [0; 3];
        for batch in events(20_000).chunks(50) {
            let response = publish(&mut client, batch.to_vec()).await;
            totals[0] += response.received;
            totals[1] += response.unique_processed;
            totals[2] += response.duplicate_dropped;
        }
        totals
    });
    let cut = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
               WHERE datname = current_database() AND pid <> pg_backend_pid()";
    // Each lost connection is followed by a commit, so this ends even on a slow machine.
    for cuts in 0..20 {
        server.database.number(cut).await;
        let stored = server.stored().await;
        while !publishing.is_finished() && server.stored().await < stored + 100 + cuts {}
    }
    // Each event was sent once, so each is new and there are no duplicates.
    assert_eq!(publishing.await.expect("no error"), [20_000, 20_000, 0]);
    assert_eq!(server.stored().await, 20_000);
    let sums = "SELECT sum(received)::bigint FROM audit_stats";
    assert_eq!(server.database.number(sums).await, 20_000);
}

#[test]
fn startup_errors_are_one_line() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("bind");
    let taken = taken.local_addr().expect("address").to_string();
    let folder = tempfile::tempdir().expect("temporary folder");
    let path = |name: &str| folder.path().join(name).to_str().expect("UTF-8").to_owned();
    std::fs::write(path("file"), "").expect("write");
    std::fs::write(path("text"), "this is no database, and longer than its header".repeat(9))
        .expect("write");
    let free = ["serve", "--listen", "127.0.0.1:0"];
    let with = |more: &[&str]| [&free[..], more].concat().join("\u{1f}");
    let run = |arguments: String, code, expected: &[&str]| {
        fails(&arguments.split('\u{1f}').collect::<Vec<_>>(), code, expected);
    };

    fails(&["serve", "--lisen", "x"], 2, &["--lisen", "--listen"]);
    fails(&["serve", "--listen", "here"], 2, &["--listen"]);
    let in_use = ["serve", "--listen", &taken, "--data-dir", &path("a")];
    fails(&in_use, 1, &["cannot listen on", &taken, "--listen"]);
    run(
        with(&["--data-dir", &path("file/below")]),
        1,
        &["cannot create the directory", "file/below"],
    );
    run(with(&["--data-dir", "/proc/nowhere"]), 1, &["cannot create the directory"]);
    let text = format!("sqlite:{}", path("text"));
    run(with(&["--database-url", &text]), 1, &["cannot open the database", "not a database"]);
    run(with(&["--database-url", "sqlite:"]), 2, &["missing path"]);
    let nowhere = "postgres://me:s3cret@127.0.0.1:1/d";
    run(with(&["--database-url", nowhere]), 1, &["postgres://127.0.0.1:1/d", "refused"]);
    for url in [
        "mysql://me:s3cret@h/d",
        "postgresql+asyncpg://me:s3cret@h/d?x=y",
        "postgres://me:p@s3cret/d@h/d",
        "postgres://me:s3cret@h",
        "postgres://",
        "h/d",
    ] {
        run(with(&["--database-url", url]), 1, &["cannot open the database", "percent-encoded"]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn file_in_use_is_rejected() {
    let database = TestDatabase::new(Backend::Sqlite).await;
    let url = database.url_text();
    let _service = serve(&url);
    let arguments = ["serve", "--listen", "127.0.0.1:0", "--database-url", &url];
    fails(&arguments, 1, &["another event-aggregator is using it"]);
}

#[test]
fn unknown_database_fails_immediately() {
    let (server, _) = postgres::url().rsplit_once('/').expect("a database");
    let arguments =
        ["serve", "--listen", "127.0.0.1:0", "--database-url", &format!("{server}/nowhere")];
    fails(&arguments, 1, &["does not exist"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn default_database_is_a_file_in_the_data_directory() {
    let folder = tempfile::tempdir().expect("temporary folder");
    let data = folder.path().join("a/b");
    let service =
        Service::run(program().args(["serve", "--listen", "127.0.0.1:0", "--data-dir"]).arg(&data));
    publish(&mut connect_to(service.address).await, events(1)).await;
    assert!(data.join("events.db").exists());
}
