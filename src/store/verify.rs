//! The result of a verification: whether the counters of a database match its rows.

use super::{Counters, OpenError};

/// The counters of a database and the numbers of its rows, in one snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// Location of the database, without secrets.
    pub database: String,
    /// The counters, summed over all topics.
    pub totals: Counters,
    /// Number of stored events.
    pub events: i64,
    /// Number of topics with counters.
    pub topics: i64,
    /// Number of differences.
    pub difference_count: i64,
    /// The first of them.
    pub differences: Vec<Difference>,
}

/// Two numbers that differ.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// What was compared, usually a column.
    pub check: String,
    /// The topic, or the number of the lane.
    pub of: String,
    /// The recorded number; `None` if the row is missing.
    pub recorded: Option<i64>,
    /// The expected number; `None` if there is no such event.
    pub actual: Option<i64>,
}

impl Report {
    /// A report without differences. `sums` are received, unique, duplicate and conflicting events,
    /// topics, and stored events.
    pub(super) fn of(database: &str, sums: [i64; 6]) -> Self {
        let [received, unique_processed, duplicate_dropped, conflicts, topics, events] = sums;
        Self {
            database: database.to_owned(),
            totals: Counters { received, unique_processed, duplicate_dropped, conflicts },
            events,
            topics,
            difference_count: 0,
            differences: Vec::new(),
        }
    }

    /// Whether there are no differences.
    pub fn is_exact(&self) -> bool {
        self.difference_count == 0
    }
}

/// Why a command that opens a database failed.
#[derive(Debug, thiserror::Error)]
pub enum Failed {
    /// The database cannot be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The database cannot be read.
    #[error("cannot read the database {database}: {reason}")]
    Read {
        /// Location of the database, without secrets.
        database: String,
        /// The reason.
        reason: String,
    },
    /// The database cannot be changed. Nothing was changed.
    #[error("cannot change the database {database}: {reason}")]
    Change {
        /// Location of the database, without secrets.
        database: String,
        /// The reason.
        reason: String,
    },
    /// A panic.
    #[error("internal error: {0}")]
    Broken(#[from] tokio::task::JoinError),
}

/// Checks that a database has exactly the schema of this program. `found` is `None` without a
/// schema.
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
            "it has schema version {found}, but {known} is required; start `event-aggregator \
             serve` on it once to migrate it"
        ),
        None => {
            "it has no event tables; check the database and choose another with --database-url or \
                 --data-dir"
                .to_owned()
        }
    };
    Err(OpenError::Unreachable { database: database.to_owned(), reason })
}
