//! A SQLite file whose path leads elsewhere, and a second service on one file.

use std::{
    fs,
    os::unix::fs::{MetadataExt, symlink},
    process::Command,
};

use event_aggregator::proto::v1::PublishStatus::*;

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn moved_file_stores_nothing_until_it_is_back() {
    let database = TestDatabase::new(Backend::Sqlite).await;
    let service = Logged::start(&database, &database.url_text(), "service.log");
    let mut client = service.client().await;
    assert_eq!(verdicts(&mut client, vec![event("t", "1")]).await, [Accepted]);

    let (path, away) = (database.path("events.db"), database.path("away.db"));
    fs::rename(&path, &away).expect("rename");
    assert!(cannot_read(&mut client).await);
    let waiting = publishing(client.clone(), "2");
    service.wait_until_ready(false).await;
    // A new file in its place is another, empty store.
    fs::write(&path, "").expect("write");
    assert!(cannot_read(&mut client).await);
    service.wait_until_ready(false).await;
    assert!(!waiting.is_finished());
    service.has_told_once();

    fs::rename(&away, &path).expect("rename");
    assert_eq!(waiting.await.expect("an answer"), [Accepted]);
    service.wait_until_ready(true).await;
    assert!(service.log().contains("is back"), "{}", service.log());
    assert_eq!(verdicts(&mut client, vec![event("t", "1")]).await, [Duplicate]);
    assert_eq!(counters(&mut client).await, [3, 2, 1, 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn removed_file_makes_the_service_unready() {
    let database = TestDatabase::new(Backend::Sqlite).await;
    let service = Logged::start(&database, &database.url_text(), "service.log");
    let mut client = service.client().await;
    publish(&mut client, vec![event("t", "1")]).await;
    fs::remove_file(database.path("events.db")).expect("remove");
    // Without any call.
    service.wait_until_ready(false).await;
    let waiting = publishing(client, "2");
    service.has_told_once();
    assert!(!waiting.is_finished() && !database.path("events.db").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn removed_wal_loses_nothing() {
    for suffixes in [&["-wal"][..], &["-shm"], &["-wal", "-shm"]] {
        let database = TestDatabase::new(Backend::Sqlite).await;
        let mut service = serve(&database.url_text());
        let mut client = connect_to(service.address).await;
        publish(&mut client, vec![event("t", "1")]).await;
        counters(&mut client).await;
        for suffix in suffixes {
            fs::remove_file(database.path(&format!("events.db{suffix}"))).expect("remove");
        }
        assert_eq!(verdicts(&mut client, vec![event("t", "2")]).await, [Accepted]);
        assert_eq!(verdicts(&mut client, vec![event("t", "1")]).await, [Duplicate]);
        service.signal("KILL");
        service.wait();
        let service = serve(&database.url_text());
        let mut client = connect_to(service.address).await;
        assert_eq!(counters(&mut client).await, [3, 2, 1, 0], "{suffixes:?}");
        assert_eq!(database.number("SELECT count(*) FROM processed_events").await, 2);
    }
}

/// Asserts the error of a second service on a file.
fn refused(url: &str, code: i32, expected: &str) {
    fails(&["serve", "--listen", "127.0.0.1:0", "--database-url", url], code, &[expected]);
}

#[tokio::test(flavor = "multi_thread")]
async fn second_service_on_a_file_is_rejected() {
    let database = TestDatabase::new(Backend::Sqlite).await;
    let service = serve(&database.url_text());
    let (path, other) = (database.path("events.db"), database.path("other.db"));
    let url = format!("sqlite:{}", other.display());
    let in_use = "another event-aggregator is using it";

    symlink(&path, &other).expect("symlink");
    refused(&url, 1, in_use);
    fs::remove_file(&other).expect("remove");
    fs::hard_link(&path, &other).expect("link");
    refused(&url, 1, in_use);
    refused(&format!("sqlite:file:{}", path.display()), 2, "URIs are not supported");
    // No other file is needed for that.
    let names = fs::read_dir(path.parent().expect("folder")).expect("folder");
    let names: Vec<String> = names
        .map(|entry| entry.expect("entry").file_name().into_string().expect("UTF-8"))
        .filter(|name| !name.starts_with("events.db") || name.ends_with(".lock"))
        .collect();
    assert_eq!(names, ["other.db"], "no lock files");

    drop(service);
    refused(&url, 1, "2 hard links");
    fs::remove_file(&other).expect("remove");
    let _service = serve(&database.url_text());
}

#[tokio::test(flavor = "multi_thread")]
async fn colon_in_a_path_is_not_a_uri() {
    let folder = tempfile::tempdir().expect("temporary folder");
    let mut serve = program();
    serve.args(["serve", "--listen", "127.0.0.1:0", "--data-dir", "file:data?mode=memory"]);
    let service = Service::run(serve.current_dir(folder.path()));
    publish(&mut connect_to(service.address).await, vec![event("t", "1")]).await;
    assert!(folder.path().join("file:data?mode=memory/events.db").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn file_on_tmpfs_logs_a_warning() {
    let memory = std::path::Path::new("/dev/shm");
    let is_memory = Command::new("stat").args(["-f", "-c", "%T"]).arg(memory).output();
    assert!(is_memory.expect("stat").stdout.starts_with(b"tmpfs"), "the tests need /dev/shm");
    let folder = tempfile::tempdir_in(memory).expect("temporary folder");
    let database = TestDatabase::new(Backend::Sqlite).await;
    let url = format!("sqlite:{}", folder.path().join("events.db").display());
    let service = Logged::start(&database, &url, "service.log");
    let log = service.log();
    let warned = log.lines().filter(|line| line.contains("WARN") && line.contains("tmpfs"));
    assert_eq!(warned.count(), 1, "{log}");
    let device = |path: &std::path::Path| fs::metadata(path).expect("metadata").dev();
    if device(&database.path("")) != device(memory) {
        let service = Logged::start(&database, &database.url_text(), "other.log");
        assert!(!service.log().contains("tmpfs"), "{}", service.log());
    }
}
