//! The PostgreSQL store: one dedicated connection per lane for commits, a pool for reads.

use std::sync::Arc;

use async_trait::async_trait;
use deadpool_postgres::{Manager, ManagerConfig, Pool, RecyclingMethod, Runtime};
use tokio::{sync::Mutex, task::JoinHandle};
use tokio_postgres::error::{Severity, SqlState};
use tracing::warn;
use uuid::Uuid;

use super::{
    Batch, Durability, Error, FeedQuery, Found, LaneState, ListQuery, OpenError, Page, Place,
    Stats, Store, chain,
    judge::{Judgement, Original},
};
use crate::{
    event::{EventKey, Outcome},
    limits::{
        COMMIT_TIMEOUT, LEDGER_PRUNE_INTERVAL, LEDGER_RETENTION, PING_TIMEOUT,
        READ_CONNECTION_WAIT, READ_CONNECTIONS, READ_TIMEOUT, SESSION_TIMEOUT,
    },
};
use session::Target;

pub use columns::JsonText;
pub use lane::STORE;
pub(super) use reply::told;
pub use restored::restored;
pub use verify::verify;

mod columns;
mod durability;
mod lane;
mod open;
mod read;
mod reply;
mod restored;
mod session;
mod tls;
mod verify;

/// A store in a PostgreSQL database, versions 15 to 18.
#[derive(Debug)]
pub struct PostgresStore {
    id: Uuid,
    location: String,
    lanes: Vec<Mutex<lane::Lane>>,
    readers: Pool,
    /// A connection apart for [`Store::ping`], so that slow reads do not look like an outage.
    prober: Pool,
    pruning: JoinHandle<()>,
}

impl PostgresStore {
    /// Connects to the database at `url` and brings its schema up to date. Waits a while for a
    /// database that does not answer yet.
    pub async fn open(url: &str, durability: Durability) -> Result<Self, OpenError> {
        let target = Target::of(url)?;
        let opened = open::prepare(&target, durability).await?;
        let lane_target = target.with_options(LANE_OPTIONS);
        let lanes = (0..opened.lanes).map(|_| Mutex::new(lane::Lane::new(lane_target.clone())));
        let location = target.describe();
        let pool = |connections| {
            pool(&target, connections)
                .map_err(|reason| OpenError::Unreachable { database: location.clone(), reason })
        };
        let (readers, prober) = (pool(READ_CONNECTIONS)?, pool(1)?);
        let pruning = tokio::spawn(prune(readers.clone()));
        let (id, lanes) = (opened.store_id, lanes.collect());
        Ok(Self { id, location, lanes, readers, prober, pruning })
    }

    async fn reader(&self) -> Result<Reader, Error> {
        let connection = self.readers.get().await;
        connection.map(Reader::new).map_err(|error| Error::Unavailable(error.into()))
    }
}

/// Settings of lane sessions. Their statements are planned once, perhaps while the tables are empty,
/// and must look keys up by index all the same when there are millions.
const LANE_OPTIONS: &str = "-c plan_cache_mode=force_generic_plan -c enable_seqscan=off \
                            -c enable_hashjoin=off -c enable_mergejoin=off";

/// A connection that is given up, with what it is doing, if a read is abandoned half-way: the next
/// one who borrowed it would have to wait for that.
struct Reader {
    connection: Option<deadpool_postgres::Object>,
}

impl Reader {
    fn new(connection: deadpool_postgres::Object) -> Self {
        Self { connection: Some(connection) }
    }

    async fn run<T>(
        mut self,
        read: impl AsyncFnOnce(&deadpool_postgres::Object) -> Result<T, tokio_postgres::Error>,
    ) -> Result<T, Error> {
        let Some(connection) = &self.connection else {
            return Err(Error::Unavailable("the connection is gone".into()));
        };
        let read = tokio::time::timeout(READ_TIMEOUT, read(connection)).await;
        let result = read.map_err(|late| Error::Timeout(late.into()))?.map_err(read_error);
        // Done, so it goes back to the pool.
        self.connection = None;
        result
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        if let Some(abandoned) = self.connection.take() {
            // That cuts it, which the server notices.
            drop(deadpool_postgres::Object::take(abandoned));
        }
    }
}

fn pool(target: &Target, connections: usize) -> Result<Pool, String> {
    let Target { config, tls } = target.with_options("-c plan_cache_mode=force_custom_plan");
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

/// Keeps the ledger short, for ever.
async fn prune(pool: Pool) {
    let sql = "DELETE FROM batch_ledger WHERE entered_at < now() - make_interval(secs => $1)";
    let retention = LEDGER_RETENTION.as_secs_f64();
    let mut interval = tokio::time::interval(LEDGER_PRUNE_INTERVAL);
    loop {
        interval.tick().await;
        let pruned = async {
            let connection = pool.get().await.map(Reader::new);
            let connection = connection.map_err(|error| Error::Unavailable(error.into()))?;
            connection.run(async |pruner| pruner.execute(sql, &[&retention]).await).await
        };
        if let Err(error) = pruned.await {
            warn!(error = chain(&error), "cannot prune the batch ledger; trying again later");
        }
    }
}

/// What an error of a statement that writes says about it: an ERROR reply means that it was rolled
/// back; a lost connection, or a server that went down over it, means nothing.
fn write_error(error: tokio_postgres::Error) -> Error {
    let Some(reply) = error.as_db_error() else { return Error::Unknown(error.into()) };
    let class = reply.code().code().get(..2);
    match (reply.parsed_severity(), class) {
        // Data exceptions, violated constraints, exceeded limits.
        (Some(Severity::Error), Some("22" | "23" | "54")) => Error::Refused(error.into()),
        (Some(Severity::Error), _) if is_passing(reply.code()) => Error::Unavailable(error.into()),
        (Some(Severity::Error), _) => Error::Fault(error.into()),
        _ => Error::Unknown(error.into()),
    }
}

/// Whether an error is about the connection, the transaction, locks, resources or a server that stops or
/// takes no writes, none of which is the fault of data: prepared statements that are gone included.
fn is_passing(code: &SqlState) -> bool {
    matches!(
        code.code().get(..2),
        Some("08" | "25" | "26" | "28" | "3D" | "40" | "53" | "55" | "57")
    )
}

/// Whether a commit failed because the server takes no writes any more.
fn is_demoted(error: &Error) -> bool {
    let Error::Unavailable(cause) = error else { return false };
    let reply = cause.downcast_ref::<tokio_postgres::Error>();
    reply.and_then(|reply| reply.code()) == Some(&SqlState::READ_ONLY_SQL_TRANSACTION)
}

fn read_error(error: tokio_postgres::Error) -> Error {
    match error.code() {
        Some(code) if *code == SqlState::QUERY_CANCELED => Error::Timeout(error.into()),
        _ => Error::Unavailable(error.into()),
    }
}

#[async_trait]
impl Store for PostgresStore {
    fn id(&self) -> Uuid {
        self.id
    }

    fn location(&self) -> &str {
        &self.location
    }

    fn lanes(&self) -> u16 {
        self.lanes.len() as u16
    }

    async fn commit(&self, batch: Arc<Batch>) -> Result<Vec<Outcome>, Error> {
        let mut lane = self.lanes[usize::from(batch.lane)].lock().await;
        let result = tokio::time::timeout(COMMIT_TIMEOUT, lane.commit(&batch)).await;
        let result = result.unwrap_or_else(|late| {
            lane.disconnect();
            Err(Error::Unknown(late.into()))
        });
        if result.as_ref().is_err_and(is_demoted) {
            // What it shows from now on is the past. New sessions are opened where writes are taken.
            self.readers.retain(|_, _| false);
            self.prober.retain(|_, _| false);
        }
        result
    }

    async fn list(&self, query: ListQuery) -> Result<Page, Error> {
        let lanes = self.lanes();
        self.reader().await?.run(async |reader| read::list(reader, lanes, &query).await).await
    }

    async fn get(&self, keys: Vec<EventKey>, max_bytes: usize) -> Result<Found, Error> {
        self.reader().await?.run(async |reader| read::get(reader, &keys, max_bytes).await).await
    }

    async fn stats(&self, topic: Option<String>, max_topics: usize) -> Result<Stats, Error> {
        let topic = topic.as_deref();
        self.reader().await?.run(async |reader| read::stats(reader, topic, max_topics).await).await
    }

    async fn heads(&self, at: Vec<i64>) -> Result<Vec<LaneState>, Error> {
        self.reader().await?.run(async |reader| read::heads(reader, &at).await).await
    }

    async fn read(&self, query: FeedQuery) -> Result<Page, Error> {
        self.reader().await?.run(async |reader| read::read(reader, &query).await).await
    }

    async fn positions_at(&self, place: Place) -> Result<Vec<i64>, Error> {
        self.reader().await?.run(async |reader| read::positions_at(reader, place).await).await
    }

    async fn ping(&self) -> Result<(), Error> {
        let answer = async {
            let connection = self.prober.get().await.map(Reader::new);
            let connection = connection.map_err(|error| Error::Unavailable(error.into()))?;
            connection.run(async |prober| prober.simple_query("SELECT 1").await.map(drop)).await
        };
        let answer = tokio::time::timeout(PING_TIMEOUT, answer).await;
        answer.unwrap_or_else(|late| Err(Error::Unavailable(late.into())))
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
