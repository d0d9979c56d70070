//! A database proxy that closes connections at chosen moments.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use event_aggregator::config::Database;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpListener, TcpStream, UnixStream},
    sync::Notify,
};
use tokio_postgres::config::Host;

use crate::harness::TestDatabase;

/// When a connection is closed, relative to a message from the service to the database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cut {
    /// It does not arrive.
    Before,
    /// Half of it arrives.
    During,
    /// It arrives and is executed, but the reply is lost.
    After,
}

/// A trap: closes the connection whose data contains `marker` for the `times`th time, once.
#[derive(Debug, Clone)]
pub struct Trap {
    pub marker: String,
    pub times: usize,
    pub cut: Cut,
}

/// A database proxy.
pub struct Proxy {
    address: SocketAddr,
    trap: Arc<Mutex<Option<Trap>>>,
    hang_up: Arc<Notify>,
}

trait Connection: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Connection for T {}

impl Proxy {
    pub async fn start(database: &TestDatabase) -> Self {
        let Database::Postgres(url) = &database.url else { panic!("PostgreSQL only") };
        let config: tokio_postgres::Config = url.parse().expect("URL");
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
        let address = listener.local_addr().expect("address");
        let trap = Arc::new(Mutex::new(None));
        let hang_up = Arc::new(Notify::new());
        let (traps, cuts) = (Arc::clone(&trap), Arc::clone(&hang_up));
        tokio::spawn(async move {
            while let Ok((service, _)) = listener.accept().await {
                let (database, traps) = (connect(&config).await, Arc::clone(&traps));
                let cuts = Arc::clone(&cuts);
                tokio::spawn(async move {
                    tokio::select! {
                        () = forward(service, database, traps) => (),
                        () = cuts.notified() => (),
                    }
                });
            }
        });
        Self { address, trap, hang_up }
    }

    /// URL of the database through the proxy.
    pub fn url(&self, database: &TestDatabase) -> Database {
        let Database::Postgres(url) = &database.url else { panic!("PostgreSQL only") };
        let (start, rest) = url.split_once('@').expect("a user");
        let (_, name) = rest.split_once('/').expect("a database");
        Database::Postgres(format!("{start}@{}/{name}", self.address))
    }

    /// Closes all connections.
    pub fn hang_up(&self) {
        self.hang_up.notify_waiters();
    }

    pub fn set(&self, trap: Trap) {
        *self.trap.lock().expect("trap") = Some(trap);
    }

    pub fn is_sprung(&self) -> bool {
        self.trap.lock().expect("trap").is_none()
    }
}

async fn connect(config: &tokio_postgres::Config) -> Box<dyn Connection> {
    let port = config.get_ports().first().copied().unwrap_or(5432);
    match &config.get_hosts()[0] {
        Host::Unix(folder) => {
            let socket = folder.join(format!(".s.PGSQL.{port}"));
            Box::new(UnixStream::connect(socket).await.expect("connect"))
        }
        Host::Tcp(host) => Box::new(TcpStream::connect((&**host, port)).await.expect("connect")),
    }
}

async fn forward(
    service: TcpStream,
    database: Box<dyn Connection>,
    traps: Arc<Mutex<Option<Trap>>>,
) {
    let (mut from_service, mut to_service) = service.into_split();
    let (mut from_database, mut to_database) = tokio::io::split(database);
    let mut answers = vec![0; 1 << 16];
    let mut requests = vec![0; 1 << 20];
    let mut seen = Vec::new();
    loop {
        tokio::select! {
            read = from_service.read(&mut requests) => {
                let Ok(length @ 1..) = read else { return };
                let data = &requests[..length];
                seen.extend_from_slice(data);
                let sprung = spring(&traps, &seen);
                let forwarded = match sprung {
                    Some(Cut::Before) => return,
                    Some(Cut::During) => &data[..length / 2],
                    Some(Cut::After) | None => data,
                };
                if to_database.write_all(forwarded).await.is_err() {
                    return;
                }
                if sprung.is_some() {
                    // For `After`, a reply shows that it was executed.
                    if sprung == Some(Cut::After) {
                        let _ = from_database.read(&mut answers).await;
                    }
                    return;
                }
            }
            read = from_database.read(&mut answers) => {
                let Ok(length @ 1..) = read else { return };
                if to_service.write_all(&answers[..length]).await.is_err() {
                    return;
                }
            }
        }
    }
}

/// Whether to close this connection now.
fn spring(traps: &Mutex<Option<Trap>>, seen: &[u8]) -> Option<Cut> {
    let mut armed = traps.lock().expect("trap");
    let trap = armed.as_ref()?;
    let marker = trap.marker.as_bytes();
    let times = seen.windows(marker.len()).filter(|window| *window == marker).count();
    (times >= trap.times).then_some(trap.cut).inspect(|_| *armed = None)
}
