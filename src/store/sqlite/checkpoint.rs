//! Checkpoints: copying the pages of the WAL into the database file once the WAL is large. Most pages
//! are copied on a thread beside the writer, which commits meanwhile. The writer itself copies those
//! that it added since then, because SQLite restarts the WAL only when all of it was copied.

use std::{
    sync::{
        Arc,
        atomic::{AtomicI32, Ordering},
    },
    thread::{Builder, JoinHandle},
};

use rusqlite::{Connection, OpenFlags, hooks::Wal};
use tracing::warn;

use super::{Error, Source, file::LogFiles};
use crate::{limits::SQLITE_WAL_PAGES, store::chain};

/// The checkpoints of the writing connection.
pub(super) struct Checkpoints {
    source: Arc<Source>,
    log: LogFiles,
    /// Pages in the WAL.
    pages: Arc<AtomicI32>,
    /// Pages from which on they are copied.
    limit: i32,
    /// The thread that copies them.
    copying: Option<JoinHandle<()>>,
}

impl Checkpoints {
    pub(super) fn new(source: &Arc<Source>, log: &LogFiles, connection: &mut Connection) -> Self {
        let pages = Arc::default();
        count(connection, &pages);
        let (source, log) = (Arc::clone(source), log.clone());
        Self { source, log, pages, limit: SQLITE_WAL_PAGES, copying: None }
    }

    /// Takes the next step of a checkpoint, if one is due. Called between two commits.
    pub(super) fn step(&mut self, connection: &Connection) {
        match &self.copying {
            None if self.pages.load(Ordering::Relaxed) >= self.limit => {
                let (source, log) = (Arc::clone(&self.source), self.log.clone());
                let thread = Builder::new().name("sqlite-checkpoint".to_owned());
                let copying = thread.spawn(move || {
                    if let Err(error) = beside_the_writer(&source, &log) {
                        warn!(error = chain(&error), "SQLite checkpoint failed; will retry");
                    }
                });
                // Without a thread, the writer copies all of them.
                self.copying = copying.ok();
                if self.copying.is_none() {
                    self.complete(connection);
                }
            }
            Some(copying) if copying.is_finished() => {
                self.wait();
                self.complete(connection);
            }
            _ => (),
        }
    }

    /// Waits until the thread has closed its connection.
    pub(super) fn wait(&mut self) {
        if let Some(copying) = self.copying.take()
            && copying.join().is_err()
        {
            warn!("SQLite checkpoint panicked");
        }
    }

    /// Copies the pages that are left. If a reader needs an older version of a page, the rest waits
    /// until the WAL has grown further.
    fn complete(&mut self, connection: &Connection) {
        let left = match checkpoint(connection) {
            Ok((in_log, copied)) => (in_log - copied).max(0),
            Err(error) => {
                warn!(%error, "SQLite checkpoint failed; will retry");
                self.limit
            }
        };
        let more = if left == 0 { 0 } else { self.limit };
        self.limit = SQLITE_WAL_PAGES.saturating_add(more);
        self.pages.store(0, Ordering::Relaxed);
    }
}

/// Counts the pages of the WAL in place of automatic checkpoints, which SQLite would run before a
/// commit returns.
fn count(connection: &mut Connection, pages: &Arc<AtomicI32>) {
    let pages = Arc::clone(pages);
    let counting = connection.wal_hook(Some(move |_: &mut Wal, in_log| {
        pages.store(in_log, Ordering::Relaxed);
        Ok(())
    }));
    if let Err(error) = counting {
        warn!(%error, "failed to track the size of the SQLite WAL");
    }
}

fn beside_the_writer(source: &Source, log: &LogFiles) -> Result<(), Error> {
    source.check()?;
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(source.file.path(), flags)?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    source.check_store(&connection)?;
    // If the WAL was removed before it was opened here, this is another one, without the pages of the
    // writer. The next commit notices that.
    if log.are_there() {
        checkpoint(&connection)?;
    }
    Ok(())
}

/// Copies pages, except those of which a reader needs an older version. Returns how many pages the WAL
/// has, and how many of those are copied.
fn checkpoint(connection: &Connection) -> rusqlite::Result<(i32, i32)> {
    connection.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |row| Ok((row.get(1)?, row.get(2)?)))
}
