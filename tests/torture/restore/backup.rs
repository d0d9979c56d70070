//! Backup and restore of a database with SQL, equivalent to `pg_dump` and `sqlite3 .backup`.

use std::path::{Path, PathBuf};

use tokio::task::spawn_blocking;

use crate::database::Database;

/// The tables of a store.
const TABLES: [&str; 4] = ["lanes", "processed_events", "audit_stats", "batch_ledger"];

/// Location of a backup.
pub enum Backup {
    /// In a schema of the same database.
    Schema,
    /// In a file.
    File(PathBuf),
}

impl Backup {
    /// Copies a snapshot of the tables.
    pub async fn of(database: &Database, folder: &Path) -> Result<Self, String> {
        let Database::Sqlite(path) = database else {
            let copies = TABLES
                .map(|table| format!("CREATE TABLE copies.of_{table} AS TABLE public.{table};"));
            let sql = format!(
                "BEGIN ISOLATION LEVEL REPEATABLE READ; CREATE SCHEMA copies; {} COMMIT",
                copies.concat()
            );
            database.execute(&sql).await?;
            return Ok(Self::Schema);
        };
        let file = folder.join("backup.db");
        run(path, format!("VACUUM INTO '{}'", file.display())).await?;
        Ok(Self::File(file))
    }

    /// Replaces the current rows with those of the backup, in one transaction.
    pub async fn restore(&self, database: &Database) -> Result<(), String> {
        match (self, database) {
            (Self::File(file), Database::Sqlite(path)) => {
                let rows = TABLES.map(|table| {
                    format!(
                        "DELETE FROM main.{table};
                         INSERT INTO main.{table} SELECT * FROM backup.{table};"
                    )
                });
                let sql = format!(
                    "ATTACH '{}' AS backup; BEGIN IMMEDIATE; {} COMMIT",
                    file.display(),
                    rows.concat()
                );
                run(path, sql).await
            }
            _ => {
                let rows = TABLES.map(|table| {
                    format!(
                        "DELETE FROM public.{table};
                         INSERT INTO public.{table} SELECT * FROM copies.of_{table};"
                    )
                });
                // Every commit first locks the row of its lane.
                let sql = format!("BEGIN; LOCK TABLE public.lanes; {} COMMIT", rows.concat());
                database.execute(&sql).await
            }
        }
    }
}

async fn run(path: &Path, sql: String) -> Result<(), String> {
    let path = path.to_owned();
    let running = spawn_blocking(move || {
        let connection = rusqlite::Connection::open(path)?;
        connection.busy_timeout(std::time::Duration::from_secs(10))?;
        connection.execute_batch(&sql)
    });
    running.await.expect("no panic").map_err(|error| error.to_string())
}
