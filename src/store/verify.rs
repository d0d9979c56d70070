//! What a verification of a database finds: whether its counters say what its rows say.

use super::{Counters, OpenError};

/// The counters of a database beside what its rows add up to, at one instant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// Where the database is, without secrets.
    pub database: String,
    /// The counters, over all topics.
    pub totals: Counters,
    /// Events that are stored.
    pub events: i64,
    /// Topics that have counters.
    pub topics: i64,
    /// How many differences there are.
    pub difference_count: i64,
    /// The first of them.
    pub differences: Vec<Difference>,
}

/// Two numbers that must be equal and are not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// What was compared, by the column that was checked.
    pub check: String,
    /// The topic, or the number of the lane.
    pub of: String,
    /// What the database says; nothing if the row is missing.
    pub recorded: Option<i64>,
    /// What it must say; nothing if there is no such event.
    pub actual: Option<i64>,
}

impl Report {
    /// Whether nothing differs.
    pub fn is_exact(&self) -> bool {
        self.difference_count == 0
    }
}

/// Why a command that works on a database itself failed.
#[derive(Debug, thiserror::Error)]
pub enum Failed {
    /// It cannot be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// It was opened, and reading it failed.
    #[error("cannot read the database {database}: {reason}")]
    Read {
        /// The database, without secrets.
        database: String,
        /// Why.
        reason: String,
    },
    /// Changing it failed. Nothing was changed.
    #[error("cannot change the database {database}: {reason}")]
    Change {
        /// The database, without secrets.
        database: String,
        /// Why.
        reason: String,
    },
    /// A fault of the program.
    #[error("internal error: {0}")]
    Broken(#[from] tokio::task::JoinError),
}

/// Sees to it that a database has exactly the schema that is read. `found` is nothing if it has none.
pub(super) fn check_schema(
    found: Option<i64>,
    known: &[refinery::Migration],
    database: &str,
) -> Result<(), OpenError> {
    let known = known.iter().map(|migration| migration.version()).max().unwrap_or(0).into();
    let reason = match found {
        Some(found) if found == known => return Ok(()),
        Some(found) if found > known => return Err(OpenError::SchemaTooNew { found, known }),
        Some(found) => format!(
            "it has schema version {found}, but {known} is required; start `event-aggregator serve` on it \
             once to migrate it"
        ),
        None => {
            "it has no event tables; check the database and choose another with --database-url or \
                 --data-dir"
                .to_owned()
        }
    };
    Err(OpenError::Unreachable { database: database.to_owned(), reason })
}
