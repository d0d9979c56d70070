//! Opens a database: waits for it, checks and migrates it, and reads its identity.

use std::time::Duration;

use backon::{ExponentialBuilder, Retryable};
use time::OffsetDateTime;
use tokio::time::Instant;
use tokio_postgres::Client;
use tracing::{info, warn};
use uuid::Uuid;

use super::{
    OpenError,
    advice::advice,
    durability,
    reply::{redacted, redacted_migration},
    schema::{self, Schemas},
    session::{ConnectError, Session},
    settings,
    target::Target,
};
use crate::{
    limits::{DATABASE_WAIT, MIGRATION_WAIT},
    store::{Durability, check_lanes},
};

mod migrations {
    refinery::embed_migrations!("src/store/postgres/migrations");
}

/// All migrations of this program.
pub(super) fn migrations() -> Vec<refinery::Migration> {
    migrations::migrations::runner().get_migrations().clone()
}

/// Minimum and maximum delay between attempts to connect at startup. A server that comes back is
/// found within a second.
const MIN_CONNECT_DELAY: Duration = Duration::from_millis(100);
const MAX_CONNECT_DELAY: Duration = Duration::from_secs(1);

/// The oldest supported server, as in `server_version_num`.
const MIN_SERVER_VERSION: i32 = 150_000;

/// How often the migration lock is tried while another instance holds it.
const LOCK_POLL_INTERVAL: Duration = Duration::from_millis(100);

/// What is fixed when a database is created.
pub(super) struct Opened {
    pub(super) store_id: Uuid,
    pub(super) lanes: u16,
    /// Schema with the tables.
    pub(super) schema: String,
}

/// Waits for the database, checks and migrates it, and reads its identity.
pub(super) async fn prepare(target: &Target, demanded: Durability) -> Result<Opened, OpenError> {
    let database = target.describe();
    let unreachable = |reason| OpenError::Unreachable { database: database.clone(), reason };

    let waiting = ExponentialBuilder::default()
        .with_min_delay(MIN_CONNECT_DELAY)
        .with_max_delay(MAX_CONNECT_DELAY)
        .with_total_delay(Some(DATABASE_WAIT))
        .without_max_times();
    let mut session = (|| Session::open(target))
        .retry(waiting)
        .when(ConnectError::may_pass)
        .notify(|error, _| info!(reason = error.advice(), %database, "waiting for the database"))
        .await
        .map_err(|error| unreachable(error.advice()))?;

    check_server(&session, &database).await?;
    settings::check(&session, &target.mark, &database).await?;
    let schema = migrate(session.as_mut(), &database, demanded).await?;

    let identity = "SELECT store_id, array(SELECT lane FROM lanes ORDER BY lane),
                           (SELECT max(last_received_at) FROM lanes) FROM store_identity";
    let row = session.query_one(identity, &[]).await;
    let row = row.map_err(|error| unreachable(advice(&error)))?;
    let lanes: Vec<i16> = row.get(1);
    let lanes = check_lanes(lanes.into_iter().map(i64::from)).map_err(unreachable)?;
    if let Some(latest) = row.get::<_, Option<OffsetDateTime>>(2) {
        super::super::warn_of_future(latest.into());
    }
    Ok(Opened { store_id: row.get(0), lanes, schema })
}

pub(super) async fn check_server(client: &Client, database: &str) -> Result<(), OpenError> {
    let settings = "SELECT current_setting('server_version_num')::int,
                           current_setting('server_version'), current_setting('server_encoding')";
    let refused = |reason: String| OpenError::Unreachable { database: database.to_owned(), reason };
    let row = client.query_one(settings, &[]).await.map_err(|error| refused(advice(&error)))?;
    let (number, version, encoding): (i32, String, String) = (row.get(0), row.get(1), row.get(2));
    if number < MIN_SERVER_VERSION {
        return Err(refused(format!(
            "PostgreSQL {version} is not supported; {} or newer is required",
            MIN_SERVER_VERSION / 10_000
        )));
    }
    if encoding != "UTF8" {
        return Err(refused(format!(
            "its encoding is {encoding}, not UTF8; create it with: createdb --encoding=UTF8 \
             --template=template0"
        )));
    }
    Ok(())
}

/// Finds the schema, checks its durability, and applies the migrations, one instance at a time.
/// Returns the schema, which the session is pinned to.
async fn migrate(
    client: &mut Client,
    database: &str,
    demanded: Durability,
) -> Result<String, OpenError> {
    let failed = |reason: String| OpenError::Migration { database: database.to_owned(), reason };
    let sql = |error: tokio_postgres::Error| failed(redacted(&error));

    lock(client).await.map_err(sql)?.then_some(()).ok_or_else(|| {
        failed(format!(
            "timed out after {} s waiting for the migration of another instance",
            MIGRATION_WAIT.as_secs()
        ))
    })?;
    let schemas = Schemas::look(client, database).await?;
    let schema = match schemas.existing(database)? {
        Some(existing) => existing.to_owned(),
        None => schemas.for_creation(database)?.to_owned(),
    };
    schema::pin(client, &schema).await.map_err(sql)?;
    durability::check(client, database, demanded).await?;
    // A migration of a large table may take long.
    client.batch_execute("SET statement_timeout = 0").await.map_err(sql)?;
    let runner = migrations::migrations::runner();
    let result = runner.run_async(client).await;
    client.execute("SELECT pg_advisory_unlock($1)", &[&MIGRATION_LOCK]).await.map_err(sql)?;
    match result {
        Ok(report) => {
            for migration in report.applied_migrations() {
                info!(%migration, schema, "applied migration");
            }
            Ok(schema)
        }
        Err(error) => Err(super::super::migration_failed(
            &error,
            runner.get_migrations(),
            database.to_owned(),
            redacted_migration(&error),
        )),
    }
}

/// Arbitrary id of the advisory lock for migrations.
const MIGRATION_LOCK: i64 = 0x4576_656e_7441_6767;

/// Polls for the migration lock. A session that blocks on it would hold a snapshot, which deadlocks
/// with CREATE INDEX CONCURRENTLY. Returns false after a timeout.
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
        tokio::time::sleep(LOCK_POLL_INTERVAL).await;
    }
}
