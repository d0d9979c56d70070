//! Databases that could lose acknowledged events in a crash are rejected, and sessions are durable
//! regardless of defaults.

use std::sync::Arc;

use event_aggregator::{app::App, config::Config};
use testkit::postgres::Server;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional},
    net::{TcpListener, UnixStream},
};

use crate::harness::*;

#[tokio::test(flavor = "multi_thread")]
async fn non_durable_database_is_rejected() {
    let starting = tokio::task::spawn_blocking(|| Server::start(""));
    let server = starting.await.expect("started");
    server.set("fsync = off").await;
    let database = TestDatabase::on(&server).await;
    let url = database.url_text();
    let refused = |expected: &[&str]| {
        let mut serve = program();
        serve.env_remove("EVENT_AGGREGATOR_ALLOW_DATA_LOSS");
        serve.args(["serve", "--listen", "127.0.0.1:0", "--database-url", &url]);
        fails_as(&mut serve, 1, expected);
    };
    refused(&["acknowledged", "fsync is off", "--allow-data-loss"]);
    assert_eq!(database.number("SELECT count(*) FROM pg_class WHERE relname = 'lanes'").await, 0);

    // With --allow-data-loss it is accepted, and reading is always allowed.
    let database = TestServer::on(database).await.stop().await;
    let verified = program().args(["verify", "--database-url", &url]).output().expect("run");
    assert!(verified.status.success(), "{verified:?}");

    server.set("fsync = on").await;
    let config = || Config { allow_data_loss: false, ..config_for(&database.url) };
    App::start(&config()).await.expect("nothing is wrong");
    database.execute("ALTER TABLE audit_stats SET UNLOGGED").await;
    refused(&["audit_stats is unlogged", "ALTER TABLE audit_stats SET LOGGED"]);
    database.execute("ALTER TABLE audit_stats SET LOGGED").await;
    App::start(&config()).await.expect("nothing is wrong any more");
}

#[tokio::test(flavor = "multi_thread")]
async fn session_settings_override_defaults() {
    let database = TestDatabase::new(Backend::Postgres).await;
    let name: String = {
        let url = database.url_text();
        let place = url.split('?').next().expect("a place");
        place.rsplit_once('/').expect("a database").1.to_owned()
    };
    for setting in [
        "synchronous_commit = off",
        "default_transaction_isolation = 'serializable'",
        "statement_timeout = '1h'",
    ] {
        database.execute(&format!("ALTER DATABASE {name} SET {setting}")).await;
    }
    // Not even options in the URL.
    let url = database.url_text();
    let separator = if url.contains('?') { '&' } else { '?' };
    let weak = format!("{url}{separator}options=-c%20synchronous_commit%3Doff");
    let (address, _stop, _running) =
        launch_on(&event_aggregator::config::Database::Postgres(weak)).await;
    database
        .execute(
            "CREATE TABLE seen (setting text, value text);
             CREATE FUNCTION see() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
                 INSERT INTO seen SELECT name, setting FROM pg_settings;
                 RETURN new;
             END $$;
             CREATE TRIGGER see BEFORE INSERT ON batch_ledger FOR EACH ROW EXECUTE FUNCTION see()",
        )
        .await;
    publish(&mut connect_to(address).await, vec![event("t", "1")]).await;
    let seen = "SELECT count(*) FROM seen WHERE (setting, value) IN
                (('synchronous_commit', 'on'), ('default_transaction_isolation', 'read committed'),
                 ('statement_timeout', '15000'), ('lock_timeout', '5000'),
                 ('client_connection_check_interval', '1000'))";
    assert_eq!(database.number(seen).await, 5);
}

/// A connection pooler that drops session settings, as poolers do with unknown startup parameters.
async fn start_pooler(server: &Server) -> u16 {
    let socket = Arc::new(server.folder.join(".s.PGSQL.5432"));
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
    let port = listener.local_addr().expect("address").port();
    tokio::spawn(async move {
        while let Ok((mut service, _)) = listener.accept().await {
            let socket = Arc::clone(&socket);
            tokio::spawn(async move {
                let mut database = UnixStream::connect(&*socket).await.expect("connect");
                let length = service.read_u32().await.expect("length");
                let mut startup = vec![0; length as usize - 4];
                service.read_exact(&mut startup).await.expect("startup");
                // The version, then names and values, each with a trailing zero.
                let mut passed = startup[..4].to_vec();
                let texts: Vec<&[u8]> = startup[4..].split(|byte| *byte == 0).collect();
                let given = texts.chunks_exact(2).filter(|pair| !pair[0].is_empty());
                for pair in given.filter(|pair| pair[0] != b"options") {
                    passed.extend_from_slice(&[pair[0], &[0], pair[1], &[0]].concat());
                }
                passed.push(0);
                database.write_u32(passed.len() as u32 + 4).await.expect("length");
                database.write_all(&passed).await.expect("startup");
                let _ = copy_bidirectional(&mut service, &mut database).await;
            });
        }
    });
    port
}

#[tokio::test(flavor = "multi_thread")]
async fn pooler_that_drops_settings_is_detected() {
    let starting = tokio::task::spawn_blocking(|| Server::start("-c fsync=off"));
    let server = starting.await.expect("started");
    let port = start_pooler(&server).await;
    let url = format!("postgres://postgres@127.0.0.1:{port}/postgres");
    let run = move || {
        let serve = ["serve", "--listen", "127.0.0.1:0", "--database-url", &url];
        fails(
            &serve,
            1,
            &["a session opened with", "pooler", "connect to the database server directly"],
        );
    };
    tokio::task::spawn_blocking(run.clone()).await.expect("refused");
    // Also if all settings happen to be the defaults.
    for setting in [
        "synchronous_commit = on",
        "default_transaction_isolation = 'read committed'",
        "statement_timeout = 15000",
        "lock_timeout = 5000",
        "idle_in_transaction_session_timeout = 10000",
        "client_connection_check_interval = 1000",
        "timezone = 'UTC'",
    ] {
        let database = connect(&server.url).await;
        let sql = format!("ALTER DATABASE postgres SET {setting}");
        database.batch_execute(&sql).await.expect(setting);
    }
    tokio::task::spawn_blocking(run).await.expect("refused");
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_use_the_c_collation() {
    let server = TestServer::start(Backend::Postgres).await;
    // An operating system update that changes a collation would corrupt the index.
    let collated = "SELECT count(*) FROM pg_index, unnest(indcollation) AS used
                    JOIN pg_collation c ON c.oid = used
                    WHERE indrelid IN ('processed_events'::regclass, 'audit_stats'::regclass)
                    AND collname <> 'C'";
    assert_eq!(server.database.number(collated).await, 0);
    let keys = "SELECT count(*) FROM pg_index, unnest(indcollation) AS used
                WHERE indrelid IN ('processed_events'::regclass, 'audit_stats'::regclass)
                AND used <> 0";
    assert_eq!(server.database.number(keys).await, 3, "topic and event id, and topic");
}

#[tokio::test(flavor = "multi_thread")]
async fn sqlite_version_and_wal_mode_are_safe() {
    // Earlier versions may corrupt the file when the WAL restarts.
    assert!(rusqlite::version_number() >= 3_051_003, "{}", rusqlite::version());
    let server = TestServer::start(Backend::Sqlite).await;
    publish(&mut server.client().await, vec![event("t", "1")]).await;
    assert!(server.database.path("events.db-wal").exists());
    let database = server.stop().await;
    // The header of a file in WAL mode.
    assert_eq!(std::fs::read(database.path("events.db")).expect("file")[18..20], [2, 2]);
}
