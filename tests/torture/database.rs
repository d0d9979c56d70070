//! The database of a round, accessed directly instead of through the service.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
};

use testkit::postgres::Server;
use tokio::task::spawn_blocking;
use tokio_postgres::{NoTls, config::Host};

use crate::{
    history::{Key, Row},
    secrets, workload,
};

const ROWS: &str = "SELECT topic, event_id, lane, seq, source, payload::text FROM processed_events";
const SQLITE_ROWS: &str = "SELECT topic, event_id, 0, seq, source, payload FROM processed_events";
const HEADS: &str = "SELECT lane, head FROM lanes";

pub enum Database {
    /// A database on a server of this test. The service connects as a role with the same name.
    Postgres { server: Arc<Server>, name: String },
    /// A SQLite file.
    Sqlite(PathBuf),
}

impl Database {
    /// Creates an empty database.
    pub async fn on(server: Arc<Server>) -> Result<Self, tokio_postgres::Error> {
        let name = format!("torture_{}", uuid::Uuid::new_v4().simple());
        let client = connect(&server.url).await?;
        let role = format!("CREATE ROLE {name} LOGIN PASSWORD '{}'", secrets::PASSWORD);
        client.batch_execute(&role).await?;
        let database =
            format!("CREATE DATABASE {name} OWNER {name} TEMPLATE template0 ENCODING 'UTF8'");
        client.batch_execute(&database).await?;
        Ok(Self::Postgres { server, name })
    }

    /// Whether several instances can share it.
    pub fn is_shared(&self) -> bool {
        matches!(self, Self::Postgres { .. })
    }

    /// The directory of its file.
    pub fn folder(&self) -> Option<&Path> {
        match self {
            Self::Sqlite(path) => path.parent(),
            Self::Postgres { .. } => None,
        }
    }

    /// The socket of its server.
    pub fn socket(&self) -> Option<PathBuf> {
        let Self::Postgres { server, .. } = self else { return None };
        let config: tokio_postgres::Config = server.url.parse().expect("URL");
        match &config.get_hosts()[0] {
            Host::Unix(folder) => Some(folder.join(".s.PGSQL.5432")),
            Host::Tcp(_) => None,
        }
    }

    /// The URL for a service, through a proxy or directly.
    pub fn url(&self, proxy: Option<SocketAddr>) -> String {
        match self {
            Self::Sqlite(path) => format!("sqlite:{}", path.display()),
            Self::Postgres { server, name } => {
                let direct = server.url.split_once('@').and_then(|(_, rest)| rest.split_once('/'));
                let place = match proxy {
                    Some(address) => address.to_string(),
                    None => direct.expect("a URL with a database").0.to_owned(),
                };
                format!("postgres://{name}:{}@{place}/{name}", secrets::PASSWORD)
            }
        }
    }

    /// Runs SQL directly, as the owner of the server.
    pub async fn execute(&self, sql: &str) -> Result<(), String> {
        let client = self.administrator().await?;
        client.batch_execute(sql).await.map_err(text)
    }

    /// A session of the owner of the server.
    pub async fn administrator(&self) -> Result<tokio_postgres::Client, String> {
        let Self::Postgres { server, name } = self else {
            return Err("PostgreSQL only".to_owned());
        };
        let (place, _) = server.url.rsplit_once('/').expect("a URL with a database");
        connect(&format!("{place}/{name}")).await.map_err(text)
    }

    /// The server processes of the service's sessions.
    pub async fn backends(&self) -> Result<Vec<u32>, String> {
        let sql = "SELECT pid FROM pg_stat_activity
                   WHERE usename = current_database() ORDER BY backend_start";
        let rows = self.administrator().await?.query(sql, &[]).await;
        let rows = rows.map_err(text)?;
        Ok(rows.iter().map(|row| row.get::<_, i32>(0) as u32).collect())
    }

    /// Number of the service's sessions in a transaction that writes.
    pub async fn writing(&self) -> Result<i64, String> {
        if let Self::Sqlite(_) = self {
            return Ok(0);
        }
        let sql = "SELECT count(*) FROM pg_stat_activity WHERE usename = current_database()
                   AND (backend_xid IS NOT NULL OR state LIKE 'idle in transaction%')";
        let row = self.administrator().await?.query_one(sql, &[]).await;
        row.map(|row| row.get(0)).map_err(text)
    }

    /// All rows.
    pub async fn rows(&self) -> Result<Vec<Row>, String> {
        match self {
            Self::Sqlite(path) => {
                let path = path.clone();
                spawn_blocking(move || sqlite_rows(&path)).await.expect("no panic")
            }
            Self::Postgres { .. } => {
                let rows = self.administrator().await?.query(ROWS, &[]).await;
                let rows = rows.map_err(text)?;
                let row = |row: &tokio_postgres::Row| {
                    let key = key(row.get(0), row.get(1));
                    let content = workload::content(row.get(4), row.get(5));
                    Row { key, content, lane: row.get(2), seq: row.get(3) }
                };
                Ok(rows.iter().map(row).collect())
            }
        }
    }

    /// The last sequence number of each lane.
    pub async fn heads(&self) -> Result<BTreeMap<i16, i64>, String> {
        match self {
            Self::Sqlite(path) => {
                let path = path.clone();
                spawn_blocking(move || sqlite_heads(&path)).await.expect("no panic")
            }
            Self::Postgres { .. } => {
                let rows = self.administrator().await?.query(HEADS, &[]).await;
                let rows = rows.map_err(text)?;
                Ok(rows.iter().map(|row| (row.get(0), row.get(1))).collect())
            }
        }
    }

    /// Drops it. Errors are ignored.
    pub async fn remove(self) {
        if let Self::Postgres { server, name } = &self {
            let Ok(client) = connect(&server.url).await else { return };
            let _ = client.batch_execute(&format!("DROP DATABASE {name} WITH (FORCE)")).await;
            let _ = client.batch_execute(&format!("DROP ROLE {name}")).await;
        }
    }
}

async fn connect(url: &str) -> Result<tokio_postgres::Client, tokio_postgres::Error> {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await?;
    tokio::spawn(connection);
    Ok(client)
}

pub fn key(topic: &str, event_id: &str) -> Key {
    Key { topic: topic.into(), event_id: event_id.into() }
}

/// The message of the server, or of the connection error.
fn text(error: tokio_postgres::Error) -> String {
    match error.as_db_error() {
        Some(reply) => reply.message().to_owned(),
        None => error.to_string(),
    }
}

fn sqlite_rows(path: &PathBuf) -> Result<Vec<Row>, String> {
    let read = || {
        let connection = rusqlite::Connection::open(path)?;
        let mut statement = connection.prepare(SQLITE_ROWS)?;
        let rows = statement.query_map([], |row| {
            let key = key(row.get_ref(0)?.as_str()?, row.get_ref(1)?.as_str()?);
            let content = workload::content(row.get_ref(4)?.as_str()?, row.get_ref(5)?.as_str()?);
            Ok(Row { key, content, lane: row.get(2)?, seq: row.get(3)? })
        })?;
        rows.collect::<rusqlite::Result<Vec<Row>>>()
    };
    read().map_err(|error| error.to_string())
}

fn sqlite_heads(path: &PathBuf) -> Result<BTreeMap<i16, i64>, String> {
    let read = || {
        let connection = rusqlite::Connection::open(path)?;
        let mut statement = connection.prepare(HEADS)?;
        let heads = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?;
        heads.collect::<rusqlite::Result<BTreeMap<i16, i64>>>()
    };
    read().map_err(|error| error.to_string())
}
