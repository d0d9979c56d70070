//! Faults of the database: crashes, terminated sessions, locks and connection limits.

use std::{sync::Arc, time::Duration};

use fastrand::Rng;
use tokio::{task::spawn_blocking, time::sleep};

use crate::database::Database;

/// Kills the server without a clean shutdown, and restarts it.
pub(super) async fn crash(database: &Database, by_kill: bool) -> Result<(), String> {
    let Database::Postgres { server, .. } = database else { return Ok(()) };
    let server = Arc::clone(server);
    let crashing = spawn_blocking(move || match by_kill {
        true => server.kill_and_restart(),
        false => server.crash_and_restart(),
    });
    crashing.await.map_err(|error| error.to_string())
}

/// Terminates all sessions of the service.
pub(super) async fn terminate(database: &Database) -> Result<(), String> {
    let sql = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
               WHERE usename = current_database()";
    let ended = database.administrator().await?.query(sql, &[]).await;
    match ended.map_err(|error| error.to_string())?.is_empty() {
        true => Err("there are no sessions".to_owned()),
        false => Ok(()),
    }
}

/// Locks a table; on SQLite, locks the database against writes.
pub(super) async fn lock(
    database: &Database,
    lasting: Duration,
    rng: &mut Rng,
) -> Result<(), String> {
    let Database::Sqlite(path) = database else {
        let tables = ["processed_events", "lanes", "audit_stats", "batch_ledger"];
        let locker = database.administrator().await?;
        let lock = format!("BEGIN; LOCK TABLE {}", tables[rng.usize(..tables.len())]);
        locker.batch_execute(&lock).await.map_err(|error| error.to_string())?;
        sleep(lasting).await;
        return locker.batch_execute("ROLLBACK").await.map_err(|error| error.to_string());
    };
    let path = path.clone();
    let locking = spawn_blocking(move || -> rusqlite::Result<()> {
        // Without the flag that creates the file: another fault may have moved it.
        let flags = rusqlite::OpenFlags::SQLITE_OPEN_READ_WRITE;
        let locker = rusqlite::Connection::open_with_flags(path, flags)?;
        locker.busy_timeout(Duration::from_secs(5))?;
        locker.execute_batch("BEGIN IMMEDIATE")?;
        std::thread::sleep(lasting);
        locker.execute_batch("ROLLBACK")
    });
    locking.await.expect("no panic").map_err(|error| error.to_string())
}

/// Limits the service to three sessions over all instances.
pub(super) async fn few_connections(database: &Database, lasting: Duration) -> Result<(), String> {
    let Database::Postgres { name, .. } = database else { return Ok(()) };
    let limit = |sessions: i32| format!("ALTER ROLE {name} CONNECTION LIMIT {sessions}");
    database.execute(&limit(3)).await?;
    let squeezed = terminate(database).await;
    sleep(lasting).await;
    heal(database, &limit(-1)).await?;
    squeezed
}

/// Runs SQL with retries while the database is unavailable.
pub(super) async fn heal(database: &Database, sql: &str) -> Result<(), String> {
    let mut tries = 0;
    loop {
        match database.execute(sql).await {
            Err(_) if tries < 100 => tries += 1,
            healed => return healed,
        }
        sleep(Duration::from_millis(100)).await;
    }
}
