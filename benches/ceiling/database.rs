//! A PostgreSQL database for one measurement, on a server that flushes its commits.

use std::sync::OnceLock;

use tokio_postgres::{Client, NoTls};

use crate::postgres_server::Server;

pub struct TestDatabase {
    pub url: String,
    name: String,
    server: &'static str,
}

impl TestDatabase {
    /// An empty database, on a server that has written out what earlier measurements left.
    pub async fn new() -> Self {
        static SERVER: OnceLock<String> = OnceLock::new();
        let server = SERVER.get_or_init(|| match std::env::var("TEST_DATABASE_URL") {
            Ok(url) => url,
            Err(_) => Server::start("-c max_wal_size=8GB -c shared_buffers=512MB").url,
        });
        let name = format!("bench_{}", uuid::Uuid::new_v4().simple());
        let client = connect(server).await;
        client.batch_execute(&format!("CREATE DATABASE {name}")).await.expect("create");
        client.batch_execute("CHECKPOINT").await.expect("checkpoint");
        let (place, _) = server.rsplit_once('/').expect("a database");
        Self { url: format!("{place}/{name}"), name, server }
    }

    /// Removes the database, whoever uses it.
    pub async fn drop(self) {
        let sql = format!("DROP DATABASE {} WITH (FORCE)", self.name);
        connect(self.server).await.batch_execute(&sql).await.expect("drop");
    }

    #[allow(dead_code)]
    pub async fn connect(&self) -> Client {
        connect(&self.url).await
    }
}

async fn connect(url: &str) -> Client {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await.expect("connect");
    tokio::spawn(connection);
    client
}
