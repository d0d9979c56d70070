//! The SQLite store: one file, one writer thread and some read connections. SQLite has no
//! concurrent writers.

use std::{path::Path, sync::Arc};

use async_trait::async_trait;
use rusqlite::{Connection, OpenFlags, OptionalExtension, ffi};
use tracing::{info, warn};
use uuid::Uuid;

use super::{
    Batch, Error, FeedQuery, Found, LaneState, ListQuery, OpenError, Page, Place, Stats, Store,
    chain, check_lanes,
    identity::Identity,
    judge::{Deferred, Judgement, Original},
};
use crate::{
    event::{EventKey, Outcome},
    limits::{LOCK_TIMEOUT, MAX_READ_CONNECTIONS},
};

mod checkpoint;
mod clock;
mod file;
mod read;
mod restored;
mod verify;
mod write;

use file::DatabaseFile;

pub use restored::restored;
pub use verify::verify;

mod migrations {
    refinery::embed_migrations!("src/store/sqlite/migrations");
}

/// Page cache of SQLite's writer in KiB. The upper levels of the indexes fit.
/// Public for a benchmark without the service.
pub const SQLITE_CACHE_KIB: i32 = 64 << 10;

/// A store in a SQLite file.
#[derive(Debug)]
pub struct SqliteStore {
    source: Arc<Source>,
    writer: write::Writer,
    readers: Arc<read::Readers>,
    /// A separate connection for [`Store::ping`], so that slow reads do not look like an outage.
    prober: Arc<read::Readers>,
}

/// The file that connections are opened to, and the store that must be in it.
#[derive(Debug)]
struct Source {
    identity: Identity,
    file: DatabaseFile,
}

impl Source {
    /// Fails if the path no longer leads to the opened file.
    fn check(&self) -> Result<(), Error> {
        self.file.check().map_err(|reason| Error::WrongStore(reason.into()))
    }

    /// Fails if a connection leads to another store.
    fn check_store(&self, connection: &Connection) -> Result<(), Error> {
        self.check()?;
        let found = connection.query_row(STORE_ID, [], |row| row.get(0)).optional()?;
        self.identity.check(found)
    }
}

const STORE_ID: &str = "SELECT store_id FROM store_identity";

impl SqliteStore {
    /// Opens the file at `path`. Creates it and its directory if they do not exist.
    pub fn open(path: &Path) -> Result<Self, OpenError> {
        let location = store_location(path);
        let unreachable =
            |reason: String| OpenError::Unreachable { database: location.clone(), reason };
        let sql = |error: rusqlite::Error| {
            unreachable(format!("{error}; check that it is a writable SQLite file"))
        };
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder).map_err(|error| {
                unreachable(format!(
                    "cannot create the directory {}: {error}; choose another with --data-dir or \
                     --database-url",
                    folder.display()
                ))
            })?;
        }
        let file = DatabaseFile::open(path).map_err(unreachable)?;
        let mut connection = connect(file.path()).map_err(sql)?;
        migrate(&mut connection, path)?;
        let lanes = lanes(&connection).map_err(sql)?;
        check_lanes(lanes.iter().map(|(lane, _)| *lane)).map_err(unreachable)?;
        lanes.into_iter().for_each(|(_, latest)| super::warn_of_future(latest.0));
        let id = connection.query_row(STORE_ID, [], |row| row.get(0)).map_err(sql)?;
        let identity = Identity::new(id, location.clone());
        let source = Arc::new(Source { identity, file });
        let writer = write::Writer::spawn(Arc::clone(&source), connection)
            .map_err(|error| unreachable(format!("cannot start the writer thread: {error}")))?;
        let readers = |connections| Arc::new(read::Readers::new(&source, connections));
        let (readers, prober) = (readers(MAX_READ_CONNECTIONS), readers(1));
        Ok(Self { source, writer, readers, prober })
    }
}

/// The lanes, with the time of their latest events.
fn lanes(connection: &Connection) -> rusqlite::Result<Vec<(i64, write::Micros)>> {
    let mut lanes = connection.prepare("SELECT lane, last_received_at FROM lanes ORDER BY lane")?;
    lanes.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?.collect()
}

/// Location for people.
fn store_location(path: &Path) -> String {
    format!("sqlite:{}", path.display())
}

/// Opens the file for writing.
fn connect(path: &Path) -> rusqlite::Result<Connection> {
    // The file exists. If it disappears meanwhile, a new one must not be created.
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    // FULL flushes the WAL before a commit returns, so acknowledged events survive a power failure.
    let journal: String =
        connection.pragma_update_and_check(None, "journal_mode", "WAL", |row| row.get(0))?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    let synchronous: i64 = connection.pragma_query_value(None, "synchronous", |row| row.get(0))?;
    if (journal.as_str(), synchronous) != ("wal", 2) {
        // On some file systems the WAL index cannot be shared, and SQLite silently falls back.
        let reason =
            format!("WAL mode is not available (journal_mode is {journal}); use a local disk");
        let unfit = ffi::Error::new(ffi::SQLITE_CANTOPEN);
        return Err(rusqlite::Error::SqliteFailure(unfit, Some(reason)));
    }
    connection.pragma_update(None, "cache_size", -SQLITE_CACHE_KIB)?;
    connection.busy_timeout(LOCK_TIMEOUT)?;
    // If flushing it failed, the WAL may not be on disk. It is only trusted after a checkpoint,
    // which flushes the file.
    connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))?;
    Ok(connection)
}

fn migrate(connection: &mut Connection, path: &Path) -> Result<(), OpenError> {
    let runner = migrations::migrations::runner();
    match runner.run(connection) {
        Ok(report) => {
            for migration in report.applied_migrations() {
                info!(%migration, "applied migration");
            }
            Ok(())
        }
        Err(error) => Err(super::migration_failed(
            &error,
            runner.get_migrations(),
            store_location(path),
            chain(&error),
        )),
    }
}

impl From<rusqlite::Error> for Error {
    fn from(error: rusqlite::Error) -> Self {
        use rusqlite::ErrorCode as Code;
        match error.sqlite_error_code() {
            Some(Code::ConstraintViolation | Code::TooBig | Code::TypeMismatch) => {
                Self::Refused(error.into())
            }
            Some(Code::OperationInterrupted) => Self::Timeout(error.into()),
            Some(Code::SystemIoFailure) => Self::Unknown(error.into()),
            Some(
                Code::DatabaseBusy
                | Code::DatabaseLocked
                | Code::DiskFull
                | Code::CannotOpen
                | Code::ReadOnly
                | Code::OutOfMemory
                | Code::PermissionDenied
                | Code::FileLockingProtocolFailed,
            ) => Self::Unavailable(error.into()),
            _ => Self::Fault(error.into()),
        }
    }
}

#[async_trait]
impl Store for SqliteStore {
    fn id(&self) -> Uuid {
        self.source.identity.id()
    }

    fn location(&self) -> &str {
        self.source.identity.location()
    }

    fn lanes(&self) -> u16 {
        1
    }

    async fn commit(&self, batch: Arc<Batch>) -> Result<Vec<Outcome>, Error> {
        let was_wrong = self.source.identity.is_wrong();
        let result = self.writer.commit(batch).await;
        if let Err(Error::Unknown(_)) = result {
            // With all connections closed, the next one reads what is really in the file, and its
            // ledger tells whether the batch was committed.
            warn!("reopening the SQLite file");
            let closed = tokio::try_join!(self.readers.suspend(), self.prober.suspend());
            let _nobody_reads = closed.map_err(|closed| Error::Unavailable(closed.into()))?;
            self.writer.reopen().await?;
        }
        self.source.identity.confirmed(was_wrong, result)
    }

    async fn list(&self, query: ListQuery) -> Result<Page, Error> {
        self.readers.run(move |connection| read::list(connection, &query)).await
    }

    async fn get(&self, keys: Vec<EventKey>, max_bytes: usize) -> Result<Found, Error> {
        self.readers.run(move |connection| read::get(connection, &keys, max_bytes)).await
    }

    async fn stats(&self, topic: Option<String>, max_topics: usize) -> Result<Stats, Error> {
        self.readers.run(move |connection| read::stats(connection, topic, max_topics)).await
    }

    async fn heads(&self, at: Vec<i64>) -> Result<Vec<LaneState>, Error> {
        self.readers.run(move |connection| read::heads(connection, &at)).await
    }

    async fn read(&self, query: FeedQuery) -> Result<Page, Error> {
        self.readers.run(move |connection| read::read(connection, &query)).await
    }

    async fn positions_at(&self, place: Place) -> Result<Vec<i64>, Error> {
        // There is one lane, so commit order is listing order.
        Ok(vec![place.position.seq])
    }

    async fn ping(&self) -> Result<(), Error> {
        let was_wrong = self.source.identity.is_wrong();
        let source = Arc::clone(&self.source);
        let answer = self.prober.run(move |connection| source.check_store(connection)).await;
        self.source.identity.confirmed(was_wrong, answer)
    }

    async fn close(&self) {
        // The last connection to close removes the WAL, and must be the writer's.
        self.readers.close();
        self.prober.close();
        self.writer.close().await;
        self.source.file.unlock();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn slow_reads_do_not_look_like_an_outage() {
        let folder = tempfile::tempdir().expect("temporary folder");
        let store = SqliteStore::open(&folder.path().join("events.db")).expect("open");
        let _all_readers = store.readers.suspend().await.expect("open");
        store.ping().await.expect("it is there");
    }
}
