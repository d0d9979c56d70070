//! The identity of the opened database, and the log lines when another one takes its place.

use std::sync::atomic::{AtomicBool, Ordering};

use tracing::{error, info};
use uuid::Uuid;

use super::{Error, chain};

/// The identity of the opened store.
#[derive(Debug)]
pub(super) struct Identity {
    id: Uuid,
    /// Location of the database, without secrets.
    location: String,
    /// Whether another store was found, and the original has not been seen since.
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

    /// Compares the identity with the one found in the database.
    pub(super) fn check(&self, found: Option<Uuid>) -> Result<(), Error> {
        match found {
            Some(id) if id == self.id => Ok(()),
            Some(_) => Err(other_store()),
            None => Err(Error::WrongStore("table store_identity is empty".into())),
        }
    }

    /// Logs the first error about a wrong store. For operations whose success proves nothing about
    /// other sessions.
    pub(super) fn logged<T>(&self, result: Result<T, Error>) -> Result<T, Error> {
        if let Err(error @ Error::WrongStore(_)) = &result
            && !self.is_wrong.swap(true, Ordering::Relaxed)
        {
            error!(
                database = self.location,
                error = chain(error),
                "wrong database: reads and writes fail until the original is back; if the change \
                 was intended, restart the service"
            );
        }
        result
    }

    /// Also logs that the right store is back, for operations whose success proves it. `was_wrong`
    /// is the state before the operation, which may have read the store before it was replaced.
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

/// The error if another store was found.
pub(super) fn other_store() -> Error {
    Error::WrongStore("store_identity has another id".into())
}
