//! PostgreSQL schemas and databases that hide, replace or lose the tables.

use event_aggregator::{
    config::Database,
    proto::v1::{GetStatsRequest, PublishStatus::*},
};
use testkit::postgres::Server;
use tonic::Code;

use super::*;

/// A database on a server of its own, owned by the role `app`.
async fn owned() -> (Server, TestDatabase, String) {
    let starting = tokio::task::spawn_blocking(|| Server::start("-c fsync=off"));
    let server = starting.await.expect("started");
    let database = TestDatabase::on(&server).await;
    let url = database.url_text();
    let (_, name) = url.rsplit_once('/').expect("a database");
    let sql = format!(
        "CREATE ROLE app LOGIN; ALTER DATABASE {name} OWNER TO app;
         GRANT CREATE ON SCHEMA public TO app"
    );
    database.execute(&sql).await;
    let url = url.replace("//postgres@", "//app@");
    (server, database, url)
}

fn in_schema(url: &str, schema: &str) -> String {
    let separator = if url.contains('?') { '&' } else { '?' };
    format!("{url}{separator}options=-c%20search_path%3D{schema}")
}

/// A service on the store in schema `store`, with another store in schema `other`.
async fn beside_another_store() -> (Server, TestDatabase, Logged) {
    let (server, database, url) = owned().await;
    database
        .execute("CREATE SCHEMA store AUTHORIZATION app; CREATE SCHEMA other AUTHORIZATION app")
        .await;
    drop(serve(&in_schema(&url, "other")));
    let service = Logged::start(&database, &in_schema(&url, "store"), "service.log");
    (server, database, service)
}

fn refused(url: &str, expected: &[&str]) {
    fails(&["serve", "--listen", "127.0.0.1:0", "--database-url", url], 1, expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn shadowing_schema_creates_no_second_store() {
    let (_server, database, url) = owned().await;
    let first = Logged::start(&database, &url, "first.log");
    let mut client = first.client().await;
    assert_eq!(verdicts(&mut client, vec![event("t", "1")]).await, [Accepted]);

    // By default, it is first in the search path of its role.
    database.execute("CREATE SCHEMA app AUTHORIZATION app").await;
    let second = Logged::start(&database, &url, "second.log");
    let mut other = second.client().await;
    assert_eq!(
        verdicts(&mut other, vec![event("t", "1"), event("t", "2")]).await,
        [Duplicate, Accepted]
    );
    // New sessions of the running service do not switch to it.
    let cut = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE usename = 'app'";
    database.number(cut).await;
    assert_eq!(verdicts(&mut client, vec![event("t", "1")]).await, [Duplicate]);
    assert_eq!(counters(&mut client).await, [4, 2, 2, 0]);
    assert_eq!(database.number("SELECT count(*) FROM pg_tables WHERE schemaname = 'app'").await, 0);
    let verified = program().args(["verify", "--database-url", &url]).output().expect("run");
    assert!(verified.status.success(), "{verified:?}");
    // Not even if tables are created there.
    drop(second);
    drop(serve(&in_schema(&url, "app")));
    database.number(cut).await;
    assert_eq!(verdicts(&mut client, vec![event("t", "2")]).await, [Duplicate]);
    refused(&url, &["exist in several schemas", "app, public", "search_path"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn url_selects_one_of_several_schemas() {
    let (_server, database, url) = owned().await;
    let odd = r#"an "odd" \schema"#;
    database
        .execute(r#"CREATE SCHEMA "an ""odd"" \schema" AUTHORIZATION app; CREATE SCHEMA b AUTHORIZATION app"#)
        .await;
    let odd_url = in_schema(&url, "%22an%5C%20%22%22odd%22%22%5C%20%5C%5Cschema%22");
    for url in [&odd_url, &in_schema(&url, "b")] {
        let (address, _stop, _running) = launch_on(&Database::Postgres(url.clone())).await;
        let mut client = connect_to(address).await;
        assert_eq!(verdicts(&mut client, vec![event("t", "1")]).await, [Accepted], "its own");
        assert_eq!(counters(&mut client).await, [1, 1, 0, 0]);
        let verified = program().args(["verify", "--database-url", url]).output().expect("run");
        assert!(verified.status.success(), "{verified:?}");
    }
    let tables = "SELECT count(DISTINCT schemaname) FROM pg_tables WHERE tablename = 'lanes'";
    assert_eq!(database.number(tables).await, 2);
    // Neither schema is in the search path of the role.
    refused(&url, &["exist in several schemas", odd, "options=-c%20search_path"]);
    // The only remaining schema is found regardless of the search path.
    database.execute("DROP SCHEMA b CASCADE").await;
    let (address, _stop, _running) = launch_on(&Database::Postgres(url)).await;
    let mut client = connect_to(address).await;
    assert_eq!(verdicts(&mut client, vec![event("t", "1")]).await, [Duplicate]);
}

#[tokio::test(flavor = "multi_thread")]
async fn missing_privileges_are_reported_with_the_grant() {
    let (_server, database, url) = owned().await;
    database.execute("ALTER SCHEMA public OWNER TO postgres; REVOKE CREATE ON SCHEMA public FROM app, public").await;
    refused(&url, &["may not create tables", "GRANT CREATE ON SCHEMA \"public\" TO \"app\""]);
    database.execute("CREATE SCHEMA kept; GRANT USAGE, CREATE ON SCHEMA public TO app").await;
    drop(serve(&in_schema(&database.url_text(), "kept")));
    refused(&url, &["in schema kept", "may not use", "GRANT USAGE ON SCHEMA \"kept\""]);
    refused(&in_schema(&url, "nowhere"), &["no schema in its search_path exists"]);
    assert_eq!(
        database.number("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'").await,
        0
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn recreated_database_is_rejected_by_running_service() {
    let (server, database, url) = owned().await;
    let old = Logged::start(&database, &url, "old.log");
    let mut client = old.client().await;
    assert_eq!(verdicts(&mut client, vec![event("t", "1")]).await, [Accepted]);

    let (_, name) = url.rsplit_once('/').expect("a database");
    let admin = connect(&server.url).await;
    admin.batch_execute(&format!("DROP DATABASE {name} WITH (FORCE)")).await.expect("drop");
    old.wait_until_ready(false).await;
    admin.batch_execute(&format!("CREATE DATABASE {name} OWNER app")).await.expect("create");
    let new = Logged::start(&database, &url, "new.log");
    assert_eq!(verdicts(&mut new.client().await, vec![event("t", "2")]).await, [Accepted]);

    let waiting = [publishing(client.clone(), "1"), publishing(client.clone(), "2")];
    assert!(cannot_read(&mut client).await);
    old.wait_until_ready(false).await;
    assert!(waiting.iter().all(|answer| !answer.is_finished()));
    assert_eq!(old.told(), 1, "{}", old.log());
    assert_eq!(counters(&mut new.client().await).await, [1, 1, 0, 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn swapped_tables_are_detected_in_an_open_session() {
    let (_server, database, service) = beside_another_store().await;
    let mut client = service.client().await;
    // One batch of new events, and one with duplicates.
    assert_eq!(verdicts(&mut client, vec![event("t", "1")]).await, [Accepted]);
    counters(&mut client).await;
    let swap =
        "BEGIN; ALTER SCHEMA store RENAME TO away; ALTER SCHEMA other RENAME TO store; COMMIT";
    let back =
        "BEGIN; ALTER SCHEMA store RENAME TO other; ALTER SCHEMA away RENAME TO store; COMMIT";
    for id in ["2", "1"] {
        database.execute(swap).await;
        assert!(cannot_read(&mut client).await);
        let waiting = publishing(client.clone(), id);
        service.wait_until_ready(false).await;
        assert!(!waiting.is_finished());
        assert_eq!(database.number("SELECT count(*) FROM store.processed_events").await, 0);
        database.execute(back).await;
        let expected = if id == "2" { Accepted } else { Duplicate };
        assert_eq!(waiting.await.expect("an answer"), [expected]);
        service.wait_until_ready(true).await;
        if id == "2" {
            service.has_told_once();
        }
    }
    assert_eq!(counters(&mut client).await, [3, 2, 1, 0]);

    // The tables are moved away and back, as by a restore.
    let tables = ["store_identity", "lanes", "processed_events", "audit_stats", "batch_ledger"];
    let moved = |from: &str, to: &str| {
        tables.map(|table| format!("ALTER TABLE {from}.{table} SET SCHEMA {to};")).concat()
    };
    database
        .execute(&format!("CREATE SCHEMA kept; BEGIN; {} COMMIT", moved("store", "kept")))
        .await;
    assert!(cannot_read(&mut client).await);
    let waiting = publishing(client.clone(), "3");
    service.wait_until_ready(false).await;
    database.execute(&format!("BEGIN; {} COMMIT", moved("kept", "store"))).await;
    assert_eq!(waiting.await.expect("an answer"), [Accepted]);
    service.wait_until_ready(true).await;
}

/// A read waits for a lock, and then its table names resolve to other tables.
#[tokio::test(flavor = "multi_thread")]
async fn swapped_tables_are_detected_during_a_read() {
    let (_server, database, service) = beside_another_store().await;
    let mut client = service.client().await;
    assert_eq!(verdicts(&mut client, vec![event("t", "1")]).await, [Accepted]);
    let swapping = connect(&database.url_text()).await;
    let lock = "BEGIN; LOCK TABLE store.audit_stats IN ACCESS EXCLUSIVE MODE";
    swapping.batch_execute(lock).await.expect("locked");
    let mut caller = client.clone();
    let reading = tokio::spawn(async move { caller.get_stats(GetStatsRequest::default()).await });
    let blocked = "SELECT count(*) FROM pg_stat_activity
                   WHERE datname = current_database() AND wait_event_type = 'Lock'";
    while database.number(blocked).await == 0 {}
    let swap = "ALTER SCHEMA store RENAME TO away; ALTER SCHEMA other RENAME TO store; COMMIT";
    swapping.batch_execute(swap).await.expect("swapped");
    let refused = reading.await.expect("no panic").expect_err("they are of another store");
    assert_eq!(refused.code(), Code::Unavailable);
}
