//! The PostgreSQL store: one connection per lane for commits, and a pool for reads.

use std::{error::Error as StdError, sync::Arc};

use async_trait::async_trait;
use deadpool_postgres::{Manager, ManagerConfig, Pool, PoolError, RecyclingMethod, Runtime};
use tokio::{sync::Mutex, task::JoinHandle};
use tokio_postgres::error::{Severity, SqlState};
use tracing::warn;
use uuid::Uuid;

use super::{
    Batch, Durability, Error, FeedQuery, Found, LaneState, ListQuery, OpenError, Page, Place,
    Stats, Store, chain,
    identity::Identity,
    judge::{Judgement, Original},
};
use crate::{
    event::{EventKey, Outcome},
    limits::{
        COMMIT_TIMEOUT, LEDGER_PRUNE_INTERVAL, LEDGER_RETENTION, MAX_READ_CONNECTIONS,
        MIN_LEDGER_ENTRIES, PING_TIMEOUT, READ_CONNECTION_WAIT, READ_TIMEOUT, SESSION_TIMEOUT,
    },
};
use reply::Redacted;
use target::Target;

pub use columns::JsonText;
pub use lane::STORE;
pub use restored::restored;
pub use verify::verify;

mod advice;
mod columns;
mod durability;
mod lane;
mod look;
mod open;
mod read;
mod reply;
mod restored;
mod schema;
mod session;
mod settings;
mod target;
mod tls;
mod verify;

/// A store in a PostgreSQL database of version 15 to 18.
#[derive(Debug)]
pub struct PostgresStore {
    identity: Arc<Identity>,
    lanes: Vec<Mutex<lane::Lane>>,
    readers: Pool,
    /// A separate connection for [`Store::ping`], so that slow reads do not look like an outage.
    prober: Pool,
    pruning: JoinHandle<()>,
}

impl PostgresStore {
    /// Connects to the database at `url` and migrates its schema. Waits a while for a database that
    /// does not respond.
    pub async fn open(url: &str, durability: Durability) -> Result<Self, OpenError> {
        let target = Target::of(url)?;
        let opened = open::prepare(&target, durability).await?;
        let target = target.with_options(&schema::option(&opened.schema));
        let lane_target = target.with_options(LANE_OPTIONS);
        let lane = || lane::Lane::new(lane_target.clone(), opened.store_id);
        let lanes = (0..opened.lanes).map(|_| Mutex::new(lane())).collect();
        let location = target.describe();
        let pool = |connections| {
            pool(&target, connections)
                .map_err(|reason| OpenError::Unreachable { database: location.clone(), reason })
        };
        let (readers, prober) = (pool(MAX_READ_CONNECTIONS)?, pool(1)?);
        let identity = Arc::new(Identity::new(opened.store_id, location));
        let pruning = tokio::spawn(prune(readers.clone(), Arc::clone(&identity)));
        Ok(Self { identity, lanes, readers, prober, pruning })
    }

    async fn read<T>(
        &self,
        statements: Statements,
        read: impl AsyncFnOnce(&deadpool_postgres::Object) -> Result<T, tokio_postgres::Error>,
    ) -> Result<T, Error> {
        self.identity.logged(run(&self.readers, &self.identity, statements, read).await)
    }
}

/// Options of lane sessions. Their statements are planned once, possibly while the tables are
/// empty, and must use the key indexes when they have millions of rows. JIT compilation would take
/// far longer than the statements.
const LANE_OPTIONS: &str = "-c plan_cache_mode=force_generic_plan -c enable_seqscan=off \
                            -c enable_hashjoin=off -c enable_mergejoin=off -c jit=off";

/// Number of statements of a read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Statements {
    One,
    Several,
}

/// A pooled connection. It is closed if the read is cancelled: the next user would have to wait for
/// the statement to end.
struct Reader {
    connection: Option<deadpool_postgres::Object>,
}

impl Reader {
    fn new(connection: deadpool_postgres::Object) -> Self {
        Self { connection: Some(connection) }
    }

    /// Reads, and checks the store id before and after, because table names can resolve to another
    /// schema at any time, even within a statement that calls a function.
    async fn run<T>(
        mut self,
        identity: &Identity,
        statements: Statements,
        read: impl AsyncFnOnce(&deadpool_postgres::Object) -> Result<T, tokio_postgres::Error>,
    ) -> Result<T, Error> {
        let Some(connection) = &self.connection else {
            return Err(Error::Unavailable("connection lost".into()));
        };
        let reading = async {
            // Pipelined, and executed in this order if the read is one statement that is already
            // prepared.
            let prepared = connection.statement_cache.size();
            let (before, result, mut after) = tokio::join!(
                biased;
                read::store_id(connection),
                read(connection),
                read::store_id(connection),
            );
            if statements == Statements::Several || connection.statement_cache.size() != prepared {
                after = read::store_id(connection).await;
            }
            (before, result, after)
        };
        let reading = tokio::time::timeout(READ_TIMEOUT, reading).await;
        let (before, result, after) = reading.map_err(|late| Error::Timeout(late.into()))?;
        // Finished, so the connection returns to the pool.
        self.connection = None;
        identity.check(before.map_err(read_error)?)?;
        identity.check(after.map_err(read_error)?)?;
        result.map_err(read_error)
    }
}

/// Reads on a connection of a pool.
async fn run<T>(
    pool: &Pool,
    identity: &Identity,
    statements: Statements,
    read: impl AsyncFnOnce(&deadpool_postgres::Object) -> Result<T, tokio_postgres::Error>,
) -> Result<T, Error> {
    let connection = pool.get().await.map(Reader::new);
    let read = match connection {
        Ok(reader) => reader.run(identity, statements, read).await,
        Err(PoolError::Backend(error)) => Err(Error::Unavailable(Redacted::from(error).into())),
        Err(error) => Err(Error::Unavailable(error.into())),
    };
    read.map_err(without_tables)
}

impl Drop for Reader {
    fn drop(&mut self) {
        if let Some(abandoned) = self.connection.take() {
            // Closes the connection, which the server notices.
            drop(deadpool_postgres::Object::take(abandoned));
        }
    }
}

fn pool(target: &Target, connections: usize) -> Result<Pool, String> {
    let Target { config, tls, .. } = target.with_options("-c plan_cache_mode=force_custom_plan");
    let recycling = ManagerConfig { recycling_method: RecyclingMethod::Fast };
    Pool::builder(Manager::from_config(config, tls, recycling))
        .max_size(connections)
        .runtime(Runtime::Tokio1)
        .wait_timeout(Some(READ_CONNECTION_WAIT))
        .create_timeout(Some(SESSION_TIMEOUT))
        .recycle_timeout(Some(SESSION_TIMEOUT))
        .build()
        .map_err(|error| error.to_string())
}

/// Deletes ledger entries that are old by the database's clock, but keeps the last ones of each
/// lane, because the clock may jump. Their order is that of the lane's numbers; batches without new
/// events have none.
const PRUNE: &str = "
    WITH kept AS MATERIALIZED (
        SELECT l.lane, oldest.* FROM lanes l CROSS JOIN LATERAL (
            SELECT first_seq, committed_at, batch_id FROM batch_ledger
            WHERE lane = l.lane
            ORDER BY first_seq DESC, committed_at DESC, batch_id DESC OFFSET $2::bigint - 1 LIMIT 1
        ) oldest
        WHERE (SELECT store_id FROM store_identity) = $3
    )
    DELETE FROM batch_ledger b USING kept k
    WHERE b.lane = k.lane AND b.entered_at < now() - make_interval(secs => $1)
    AND (b.first_seq, b.committed_at, b.batch_id) < (k.first_seq, k.committed_at, k.batch_id)";

/// Prunes the ledger periodically.
async fn prune(pool: Pool, identity: Arc<Identity>) {
    let mut interval = tokio::time::interval(LEDGER_PRUNE_INTERVAL);
    loop {
        interval.tick().await;
        let values = (LEDGER_RETENTION.as_secs_f64(), MIN_LEDGER_ENTRIES, identity.id());
        let pruned = run(&pool, &identity, Statements::Several, async |pruner| {
            pruner.execute(PRUNE, &[&values.0, &values.1, &values.2]).await
        });
        if let Err(error) = identity.logged(pruned.await)
            && !error.is_logged()
        {
            warn!(error = chain(&error), "failed to prune the batch ledger; will retry");
        }
    }
}

/// The error of a statement that writes. An ERROR reply means that it was rolled back. After a lost
/// connection or a server crash, the outcome is unknown.
fn write_error(error: tokio_postgres::Error) -> Error {
    let kind = match error.as_db_error() {
        Some(reply) if reply.parsed_severity() == Some(Severity::Error) => {
            match reply.code().code().get(..2) {
                // Data exceptions, constraint violations, exceeded limits.
                Some("22" | "23" | "54") => Error::Refused,
                _ if is_passing(reply.code()) => Error::Unavailable,
                _ => Error::Fault,
            }
        }
        _ => Error::Unknown,
    };
    kind(Redacted::from(error).into())
}

/// An error before anything was written: nothing was done.
fn certain(error: tokio_postgres::Error) -> Error {
    let kind = match error.as_db_error() {
        Some(reply)
            if reply.parsed_severity() == Some(Severity::Error) && !is_passing(reply.code()) =>
        {
            Error::Fault
        }
        // A received row that cannot be decoded.
        None if !error.is_closed() && !is_of_connection(&error) => Error::Fault,
        _ => Error::Unavailable,
    };
    kind(Redacted::from(error).into())
}

/// Whether an error without a reply was caused by the connection.
fn is_of_connection(error: &tokio_postgres::Error) -> bool {
    std::error::Error::source(error).is_none_or(|cause| cause.is::<std::io::Error>())
}

/// Whether an error is not caused by data, but by the connection, the transaction, locks,
/// resources, a missing prepared statement, or a server that shuts down or is read-only.
fn is_passing(code: &SqlState) -> bool {
    matches!(
        code.code().get(..2),
        Some("08" | "25" | "26" | "28" | "3D" | "40" | "53" | "55" | "57")
    )
}

/// Converts the error if the tables or the database are missing, since the store is wrong then.
fn without_tables(error: Error) -> Error {
    match error {
        Error::Unavailable(cause) | Error::Fault(cause) if has_no_tables(&*cause) => {
            Error::WrongStore(cause)
        }
        error => error,
    }
}

fn has_no_tables(cause: &(dyn StdError + 'static)) -> bool {
    let code = cause.downcast_ref().and_then(Redacted::code);
    code.is_some_and(|code| WITHOUT_TABLES.contains(code))
}

const WITHOUT_TABLES: [SqlState; 3] =
    [SqlState::UNDEFINED_TABLE, SqlState::INVALID_SCHEMA_NAME, SqlState::INVALID_CATALOG_NAME];

/// Whether a commit failed because the server became read-only.
fn is_demoted(error: &Error) -> bool {
    let Error::Unavailable(cause) = error else { return false };
    let code = cause.downcast_ref().and_then(Redacted::code);
    code == Some(&SqlState::READ_ONLY_SQL_TRANSACTION)
}

fn read_error(error: tokio_postgres::Error) -> Error {
    let kind = match error.code() {
        Some(code) if *code == SqlState::QUERY_CANCELED => Error::Timeout,
        _ => Error::Unavailable,
    };
    kind(Redacted::from(error).into())
}

#[async_trait]
impl Store for PostgresStore {
    fn id(&self) -> Uuid {
        self.identity.id()
    }

    fn location(&self) -> &str {
        self.identity.location()
    }

    fn lanes(&self) -> u16 {
        self.lanes.len() as u16
    }

    async fn commit(&self, batch: Arc<Batch>) -> Result<Vec<Outcome>, Error> {
        let was_wrong = self.identity.is_wrong();
        let mut lane = self.lanes[usize::from(batch.lane)].lock().await;
        let result = tokio::time::timeout(COMMIT_TIMEOUT, lane.commit(&batch)).await;
        let result = result.unwrap_or_else(|late| {
            lane.disconnect();
            Err(Error::Unknown(late.into()))
        });
        if result.as_ref().is_err_and(is_demoted) {
            // Its data is outdated from now on. New sessions connect to the primary.
            self.readers.retain(|_, _| false);
            self.prober.retain(|_, _| false);
        }
        self.identity.confirmed(was_wrong, result.map_err(without_tables))
    }

    async fn list(&self, query: ListQuery) -> Result<Page, Error> {
        let lanes = self.lanes();
        self.read(Statements::Several, async |reader| read::list(reader, lanes, &query).await).await
    }

    async fn get(&self, keys: Vec<EventKey>, max_bytes: usize) -> Result<Found, Error> {
        self.read(Statements::Several, async |reader| read::get(reader, &keys, max_bytes).await)
            .await
    }

    async fn stats(&self, topic: Option<String>, max_topics: usize) -> Result<Stats, Error> {
        let topic = topic.as_deref();
        self.read(Statements::One, async |reader| read::stats(reader, topic, max_topics).await)
            .await
    }

    async fn heads(&self, at: Vec<i64>) -> Result<Vec<LaneState>, Error> {
        self.read(Statements::One, async |reader| read::heads(reader, &at).await).await
    }

    async fn read(&self, query: FeedQuery) -> Result<Page, Error> {
        self.read(Statements::One, async |reader| read::read(reader, &query).await).await
    }

    async fn positions_at(&self, place: Place) -> Result<Vec<i64>, Error> {
        self.read(Statements::One, async |reader| read::positions_at(reader, place).await).await
    }

    async fn ping(&self) -> Result<(), Error> {
        let was_wrong = self.identity.is_wrong();
        let answer = run(&self.prober, &self.identity, Statements::One, async |_| Ok(()));
        let answer = tokio::time::timeout(PING_TIMEOUT, answer).await;
        let answer = answer.unwrap_or_else(|late| Err(Error::Unavailable(late.into())));
        self.identity.confirmed(was_wrong, answer)
    }

    async fn close(&self) {
        self.pruning.abort();
        self.readers.close();
        self.prober.close();
        for lane in &self.lanes {
            lane.lock().await.disconnect();
        }
    }
}
