//! The PostgreSQL store: one dedicated connection per lane for commits, a pool for reads.

use std::sync::Arc;

use async_trait::async_trait;
use deadpool_postgres::{Manager, ManagerConfig, Pool, RecyclingMethod, Runtime};
use tokio::{sync::Mutex, task::JoinHandle};
use tokio_postgres::{Config, NoTls, error::Severity, error::SqlState};
use tracing::warn;
use uuid::Uuid;

use super::{
    Batch, Error, Found, ListQuery, OpenError, Page, Stats, Store, chain,
    judge::{Judgement, Original},
};
use crate::{
    event::{EventKey, Outcome},
    limits::{
        COMMIT_TIMEOUT, CONNECT_TIMEOUT, LEDGER_PRUNE_INTERVAL, LEDGER_RETENTION,
        READ_CONNECTION_WAIT, READ_CONNECTIONS,
    },
};

pub use lane::STORE;

mod lane;
mod open;
mod read;

/// A store in a PostgreSQL database, versions 15 to 18.
#[derive(Debug)]
pub struct PostgresStore {
    id: Uuid,
    lanes: Vec<Mutex<lane::Lane>>,
    readers: Pool,
    pruning: JoinHandle<()>,
}

impl PostgresStore {
    /// Connects to the database at `url` and brings its schema up to date. Waits a while for a
    /// database that does not answer yet.
    pub async fn open(url: &str) -> Result<Self, OpenError> {
        let config = open::config(url)?;
        let opened = open::prepare(&config).await?;
        let lane_config = open::with_options(&config, "-c plan_cache_mode=force_generic_plan");
        let lanes = (0..opened.lanes).map(|_| Mutex::new(lane::Lane::new(lane_config.clone())));
        let readers = readers(&config).map_err(|reason| OpenError::Unreachable {
            database: open::describe(&config),
            reason,
        })?;
        let pruning = tokio::spawn(prune(readers.clone()));
        Ok(Self { id: opened.store_id, lanes: lanes.collect(), readers, pruning })
    }

    async fn reader(&self) -> Result<deadpool_postgres::Object, Error> {
        self.readers.get().await.map_err(|error| Error::Unavailable(error.into()))
    }
}

fn readers(config: &Config) -> Result<Pool, String> {
    let config = open::with_options(config, "-c plan_cache_mode=force_custom_plan");
    let recycling = ManagerConfig { recycling_method: RecyclingMethod::Fast };
    Pool::builder(Manager::from_config(config, NoTls, recycling))
        .max_size(READ_CONNECTIONS)
        .runtime(Runtime::Tokio1)
        .wait_timeout(Some(READ_CONNECTION_WAIT))
        .create_timeout(Some(CONNECT_TIMEOUT))
        .recycle_timeout(Some(CONNECT_TIMEOUT))
        .build()
        .map_err(|error| error.to_string())
}

/// Keeps the ledger short, for ever.
async fn prune(pool: Pool) {
    let sql = "DELETE FROM batch_ledger WHERE committed_at < now() - make_interval(secs => $1)";
    let mut interval = tokio::time::interval(LEDGER_PRUNE_INTERVAL);
    loop {
        interval.tick().await;
        let pruned = async {
            let connection = pool.get().await.map_err(|error| Error::Unavailable(error.into()))?;
            connection.execute(sql, &[&LEDGER_RETENTION.as_secs_f64()]).await.map_err(read_error)
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
        (Some(Severity::Error), _) => Error::Unavailable(error.into()),
        _ => Error::Unknown(error.into()),
    }
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

    fn lanes(&self) -> u16 {
        self.lanes.len() as u16
    }

    async fn commit(&self, batch: Arc<Batch>) -> Result<Vec<Outcome>, Error> {
        let mut lane = self.lanes[usize::from(batch.lane)].lock().await;
        let result = tokio::time::timeout(COMMIT_TIMEOUT, lane.commit(&batch)).await;
        result.unwrap_or_else(|late| {
            lane.disconnect();
            Err(Error::Unknown(late.into()))
        })
    }

    async fn list(&self, query: ListQuery) -> Result<Page, Error> {
        read::list(&self.reader().await?, &query).await.map_err(read_error)
    }

    async fn get(&self, keys: Vec<EventKey>, max_bytes: usize) -> Result<Found, Error> {
        read::get(&self.reader().await?, &keys, max_bytes).await.map_err(read_error)
    }

    async fn stats(&self, topic: Option<String>, max_topics: usize) -> Result<Stats, Error> {
        read::stats(&self.reader().await?, topic.as_deref(), max_topics).await.map_err(read_error)
    }

    async fn ping(&self) -> Result<(), Error> {
        self.reader().await?.simple_query("SELECT 1").await.map(drop).map_err(read_error)
    }

    async fn close(&self) {
        self.pruning.abort();
        self.readers.close();
        for lane in &self.lanes {
            lane.lock().await.disconnect();
        }
    }
}
