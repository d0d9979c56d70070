//! Getting to a database that is ready: connecting, migrating, reading its identity.

use std::time::Duration;

use backon::{ExponentialBuilder, Retryable};
use time::OffsetDateTime;
use tokio::time::Instant;
use tokio_postgres::{Client, Config, NoTls, config::Host, error::SqlState};
use tracing::{info, warn};
use uuid::Uuid;

use super::{OpenError, chain};
use crate::limits::{
    CONNECT_TIMEOUT, DATABASE_WAIT, IDLE_TRANSACTION_TIMEOUT, LOCK_TIMEOUT, MIGRATION_WAIT,
    STATEMENT_TIMEOUT,
};

mod migrations {
    refinery::embed_migrations!("src/store/postgres/migrations");
}

/// The migrations that this program knows.
pub(super) fn migrations() -> Vec<refinery::Migration> {
    migrations::migrations::runner().get_migrations().clone()
}

/// What is fixed when a database is created.
pub(super) struct Opened {
    pub(super) store_id: Uuid,
    pub(super) lanes: u16,
}

/// Reads a database URL and adds the settings that the service relies on.
pub(super) fn config(url: &str) -> Result<Config, OpenError> {
    // What is wrong with a URL is not told in detail: it may hold a password anywhere.
    let mut config: Config = Some(url)
        .filter(|url| url.starts_with("postgres://") || url.starts_with("postgresql://"))
        // A second one stands in a password that is not encoded, and would be printed as a host.
        .filter(|url| url.split('?').next().is_some_and(|url| url.matches('@').count() <= 1))
        .and_then(|url| url.parse().ok())
        .filter(|config: &Config| !config.get_hosts().is_empty() && config.get_dbname().is_some())
        .ok_or_else(|| OpenError::Unreachable {
            database: "named by the URL".to_owned(),
            reason: "the URL must look like postgres://user:password@host:5432/database, with \
                     other characters than letters and digits percent-encoded, or like sqlite:PATH"
                .to_owned(),
        })?;
    if config.get_connect_timeout().is_none() {
        config.connect_timeout(CONNECT_TIMEOUT);
    }
    if config.get_application_name().is_none() {
        config.application_name("event-aggregator");
    }
    // A dead peer must be noticed while producers wait.
    config
        .keepalives_idle(Duration::from_secs(15))
        .keepalives_interval(Duration::from_secs(5))
        .keepalives_retries(3)
        .tcp_user_timeout(Duration::from_secs(10));
    // synchronous_commit is set per session so that no default of a role or a database weakens the
    // promise that what was acknowledged is on disk.
    let options = format!(
        "-c synchronous_commit=on -c statement_timeout={} -c lock_timeout={} \
         -c idle_in_transaction_session_timeout={} -c timezone=UTC",
        STATEMENT_TIMEOUT.as_millis(),
        LOCK_TIMEOUT.as_millis(),
        IDLE_TRANSACTION_TIMEOUT.as_millis(),
    );
    Ok(with_options(&config, &options))
}

/// The same configuration with more session settings. Those named last count.
pub(super) fn with_options(config: &Config, options: &str) -> Config {
    let mut config = config.clone();
    let options = match config.get_options() {
        Some(given) => format!("{given} {options}"),
        None => options.to_owned(),
    };
    config.options(options);
    config
}

/// The database for people: where it is, without secrets.
pub(super) fn describe(config: &Config) -> String {
    let host = match config.get_hosts().first() {
        Some(Host::Tcp(host)) => host.clone(),
        Some(Host::Unix(folder)) => folder.display().to_string(),
        None => "localhost".to_owned(),
    };
    let port = config.get_ports().first().copied().unwrap_or(5432);
    let name = config.get_dbname().or(config.get_user()).unwrap_or_default();
    format!("postgres://{host}:{port}/{name}")
}

/// Connects. The connection's own task ends with the client.
pub(super) async fn connect(config: &Config) -> Result<Client, tokio_postgres::Error> {
    let (client, connection) = config.connect(NoTls).await?;
    tokio::spawn(async move {
        if let Err(error) = connection.await {
            // Whoever uses the client gets an error of its own.
            tracing::debug!(error = chain(&error), "database connection ended");
        }
    });
    Ok(client)
}

/// Waits for the database, migrates it, and says what it is.
pub(super) async fn prepare(config: &Config) -> Result<Opened, OpenError> {
    let database = describe(config);
    let unreachable = |error: tokio_postgres::Error| OpenError::Unreachable {
        database: database.clone(),
        reason: advice(&error),
    };

    let waiting = ExponentialBuilder::default()
        .with_min_delay(Duration::from_millis(100))
        .with_max_delay(Duration::from_secs(1))
        .with_total_delay(Some(DATABASE_WAIT))
        .without_max_times();
    let mut client = (|| connect(config))
        .retry(waiting)
        .when(may_come_up)
        .notify(|error, _| info!(reason = advice(error), %database, "waiting for the database"))
        .await
        .map_err(unreachable)?;

    check_server(&client, &database).await?;
    migrate(&mut client, &database).await?;

    let identity = "SELECT store_id, (SELECT count(*) FROM lanes),
                           (SELECT max(last_received_at) FROM lanes) FROM store_identity";
    let row = client.query_one(identity, &[]).await.map_err(unreachable)?;
    let lanes = u16::try_from(row.get::<_, i64>(1)).unwrap_or(u16::MAX);
    super::super::warn_of_future(row.get::<_, OffsetDateTime>(2).into());
    Ok(Opened { store_id: row.get(0), lanes })
}

/// Whether a database that answers like this may answer better in a moment.
fn may_come_up(error: &tokio_postgres::Error) -> bool {
    match error.code() {
        Some(code) => *code == SqlState::CANNOT_CONNECT_NOW,
        None => !error.to_string().contains("TLS"),
    }
}

/// The reason of a failed connection, with what to do about the usual ones.
pub(super) fn advice(error: &tokio_postgres::Error) -> String {
    let text = match error.as_db_error() {
        Some(reply) => reply.message().to_owned(),
        None => chain(error),
    };
    if error.code() == Some(&SqlState::INVALID_CATALOG_NAME) {
        return format!("{text}; make it with: createdb");
    }
    if text.contains("TLS") {
        return format!("{text}: connections with TLS are not supported yet; use sslmode=disable");
    }
    text
}

pub(super) async fn check_server(client: &Client, database: &str) -> Result<(), OpenError> {
    let settings = "SELECT current_setting('server_version_num')::int,
                           current_setting('server_version'), current_setting('server_encoding')";
    let refused = |reason: String| OpenError::Unreachable { database: database.to_owned(), reason };
    let row = client.query_one(settings, &[]).await.map_err(|error| refused(advice(&error)))?;
    let (number, version, encoding): (i32, String, String) = (row.get(0), row.get(1), row.get(2));
    if number < 150_000 {
        return Err(refused(format!("it is PostgreSQL {version}; 15 or newer is needed")));
    }
    if encoding != "UTF8" {
        return Err(refused(format!(
            "its encoding is {encoding}; make it with: createdb --encoding=UTF8 --template=template0"
        )));
    }
    Ok(())
}

/// Applies the migrations, one instance at a time.
async fn migrate(client: &mut Client, database: &str) -> Result<(), OpenError> {
    let failed = |reason: String| OpenError::Migration { database: database.to_owned(), reason };
    let sql = |error: tokio_postgres::Error| failed(chain(&error));

    lock(client).await.map_err(sql)?.then_some(()).ok_or_else(|| {
        failed(format!("another instance has been at it for {} s", MIGRATION_WAIT.as_secs()))
    })?;
    // A migration of a large table takes as long as it takes.
    client.batch_execute("SET statement_timeout = 0").await.map_err(sql)?;
    let runner = migrations::migrations::runner();
    let result = runner.run_async(client).await;
    client.execute("SELECT pg_advisory_unlock($1)", &[&MIGRATION_LOCK]).await.map_err(sql)?;
    match result {
        Ok(report) => {
            for migration in report.applied_migrations() {
                info!(%migration, "migrated");
            }
            Ok(())
        }
        Err(error) => Err(super::super::migration_failed(
            &error,
            runner.get_migrations(),
            database.to_owned(),
        )),
    }
}

/// An arbitrary number that everyone who migrates this schema agrees on.
const MIGRATION_LOCK: i64 = 0x4576_656e_7441_6767;

/// Takes the lock for migrations, by polling: a session that blocks on it would hold a snapshot,
/// which deadlocks with whoever builds an index concurrently. Says whether it got it in time.
async fn lock(client: &Client) -> Result<bool, tokio_postgres::Error> {
    let deadline = Instant::now() + MIGRATION_WAIT;
    let mut told = false;
    loop {
        let row = client.query_one("SELECT pg_try_advisory_lock($1)", &[&MIGRATION_LOCK]).await?;
        if row.get(0) {
            return Ok(true);
        }
        if Instant::now() > deadline {
            return Ok(false);
        }
        if !std::mem::replace(&mut told, true) {
            warn!("waiting for another instance to migrate the database");
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}
