//! Limits of the stores: statements, sessions, the ledger and clocks.

use std::time::Duration;

/// Timeout of one attempt to commit a batch, after which its connection is closed. Longer than
/// [`STATEMENT_TIMEOUT`], whose error is more specific.
pub const COMMIT_TIMEOUT: Duration = Duration::from_secs(20);

/// Timeout of a statement in the database.
pub const STATEMENT_TIMEOUT: Duration = Duration::from_secs(15);

/// Timeout for cancelling a query for originals, which takes a new connection and a few rows. After
/// that the session is closed and replaced.
pub const CANCEL_TIMEOUT: Duration = Duration::from_secs(1);

/// Timeout for a lock in the database. Lanes hold theirs for one commit.
pub const LOCK_TIMEOUT: Duration = Duration::from_secs(5);

/// Timeout of a session that is idle in a transaction, which only happens if its client is gone.
pub const IDLE_TRANSACTION_TIMEOUT: Duration = Duration::from_secs(10);

/// How often the database checks, while it runs a statement, whether its client is still connected.
pub const CLIENT_CHECK_INTERVAL: Duration = Duration::from_secs(1);

/// Timeout of a connection attempt to the database.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);

/// Timeout for opening a session: [`CONNECT_TIMEOUT`] for each of several servers, TLS, and
/// authentication. A frozen server accepts connections and never responds.
pub const SESSION_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a starting service waits for the database to respond.
pub const DATABASE_WAIT: Duration = Duration::from_secs(10);

/// How long a starting service waits for the migration of another instance.
pub const MIGRATION_WAIT: Duration = Duration::from_secs(120);

/// How long entries of the batch ledger are kept. Must exceed [`super::COMMIT_RETRY`] plus the lifetime of
/// a statement whose client is gone.
pub const LEDGER_RETENTION: Duration = Duration::from_secs(60 * 60);

/// Number of ledger entries per lane that are kept regardless of their age, because the database's
/// clock may jump. Above what a lane commits while the outcome of a batch is unknown: up to
/// [`super::COMMIT_RETRY`] plus [`COMMIT_TIMEOUT`], at some 800 flushes per second.
pub const MIN_LEDGER_ENTRIES: i64 = 65_536;

/// How often the ledger is pruned.
pub const LEDGER_PRUNE_INTERVAL: Duration = Duration::from_secs(10 * 60);

/// Number of read connections per process, so that a few slow listings do not block `GetStats`.
pub const MAX_READ_CONNECTIONS: usize = 8;

/// How long a read waits for a read connection.
pub const READ_CONNECTION_WAIT: Duration = Duration::from_secs(5);

/// Timeout of a read. Longer than [`STATEMENT_TIMEOUT`], whose error is more specific; a frozen
/// server returns none.
pub const READ_TIMEOUT: Duration = Duration::from_secs(20);

/// Timeout of a health check of the database.
pub const PING_TIMEOUT: Duration = Duration::from_secs(5);

/// Number of 4 KiB pages in SQLite's WAL that triggers a checkpoint. Random keys change the same
/// index pages often, and a checkpoint writes each of them once; 64 MiB still take only a moment.
pub const SQLITE_WAL_PAGES: i32 = 16_384;

/// Clock difference between instances above which a starting one warns. Also the maximum time of
/// receipt ahead of the database's clock: time is monotonic within a lane, so one wrong time would
/// become that of all later events.
pub const FUTURE_TOLERANCE: Duration = Duration::from_secs(10);

/// How long a process's clock must be ahead of the monotonic time before a SQLite store accepts the
/// jump. A correction by NTP lasts, a fault is corrected.
pub const CLOCK_JUMP: Duration = Duration::from_secs(60);
