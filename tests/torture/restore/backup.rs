//! A backup of a database, and putting it back: what `pg_dump` and `sqlite3 .backup` do, by SQL.

use std::path::{Path, PathBuf};

use tokio::task::spawn_blocking;

use crate::database::Database;

/// The tables whose rows make a store.
const TABLES: [&str; 4] = ["lanes", "processed_events", "audit_stats", "batch_ledger"];

/// Where the copies are.
pub enum Backup {
    /// In a schema of the same database.
    Schema,
    /// In a file.
    File(PathBuf),
}

impl Backup {
    /// Copies what is there, as it is at one moment.
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

    /// Puts the rows of then in the place of those of now, at one moment.
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
                // Whoever commits takes the row of a lane first.
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
