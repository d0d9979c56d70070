//! Which database a service has opened, and the one log line when that changes beneath it.

use std::sync::atomic::{AtomicBool, Ordering};

use tracing::{error, info};
use uuid::Uuid;

use super::{Error, chain};

/// The identity of the store that was opened.
#[derive(Debug)]
pub(super) struct Identity {
    id: Uuid,
    /// The database, without secrets.
    location: String,
    /// Whether something else was found in its place, and nothing has shown since that it is back.
    is_wrong: AtomicBool,
}

impl Identity {
    pub(super) fn new(id: Uuid, location: String) -> Self {
        Self { id, location, is_wrong: AtomicBool::new(false) }
    }

    pub(super) fn id(&self) -> Uuid {
        self.id
    }

    pub(super) fn location(&self) -> &str {
        &self.location
    }

    pub(super) fn is_wrong(&self) -> bool {
        self.is_wrong.load(Ordering::Relaxed)
    }

    /// Compares it with what the database says that it is.
    pub(super) fn check(&self, found: Option<Uuid>) -> Result<(), Error> {
        match found {
            Some(id) if id == self.id => Ok(()),
            Some(_) => Err(other_store()),
            None => Err(Error::WrongStore("table store_identity is empty".into())),
        }
    }

    /// Logs the first error that says that the store is another one. For calls whose success proves
    /// nothing about other sessions.
    pub(super) fn logged<T>(&self, result: Result<T, Error>) -> Result<T, Error> {
        if let Err(error @ Error::WrongStore(_)) = &result
            && !self.is_wrong.swap(true, Ordering::Relaxed)
        {
            error!(
                database = self.location,
                error = chain(error),
                "wrong database: reads and writes fail until the original is back; if the change was \
                 intended, restart the service"
            );
        }
        result
    }

    /// The same for calls whose success shows that the right store is back, which is logged, too. That is
    /// so if it was wrong when they began: others may have been answered before the change.
    pub(super) fn confirmed<T>(
        &self,
        was_wrong: bool,
        result: Result<T, Error>,
    ) -> Result<T, Error> {
        if was_wrong && result.is_ok() && self.is_wrong.swap(false, Ordering::Relaxed) {
            info!(database = self.location, "the original database is back");
        }
        self.logged(result)
    }
}

/// The error of a database in whose place another store was found.
pub(super) fn other_store() -> Error {
    Error::WrongStore("store_identity has another id".into())
}
