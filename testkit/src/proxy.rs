//! A TCP proxy in front of PostgreSQL: a network that is slow, stalls, and closes connections at chosen moments.

use std::{
    io,
    net::SocketAddr,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpListener, TcpStream, UnixStream},
    sync::{Notify, watch},
    time::sleep,
};
use tokio_postgres::config::Host;

/// When a connection is closed, relative to a message from the service to the database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cut {
    /// It does not arrive.
    Before,
    /// Half of it arrives.
    During,
    /// It arrives and is executed, but the reply is lost.
    After,
    /// The same, and the network is stalled from then on.
    AfterThenStall,
}

/// What closes one connection, once.
#[derive(Debug, Clone)]
pub enum Trap {
    /// Messages contain these bytes for the `times`th time.
    Message { marker: Vec<u8>, times: usize, cut: Cut },
    /// So many more bytes have passed, in either direction, over all connections.
    Bytes(usize),
}

impl Trap {
    /// Closes the first connection with a message that contains these bytes.
    pub fn message(marker: &[u8], cut: Cut) -> Self {
        Self::Message { marker: marker.to_vec(), times: 1, cut }
    }
}

/// The state of the network.
#[derive(Debug, Clone, Copy, Default)]
pub struct Weather {
    /// Nothing passes, and no connection is closed.
    pub stalled: bool,
    /// The delay of everything.
    pub delay: Duration,
    /// The most bytes that pass at once.
    pub slice: Option<usize>,
}

/// Where the database listens.
#[derive(Debug, Clone)]
pub enum Target {
    Unix(PathBuf),
    Tcp(String, u16),
}

impl Target {
    /// The server of a PostgreSQL URL.
    pub fn of(url: &str) -> Self {
        let config: tokio_postgres::Config = url.parse().expect("URL");
        let port = config.get_ports().first().copied().unwrap_or(5432);
        match &config.get_hosts()[0] {
            Host::Unix(folder) => Self::Unix(folder.join(format!(".s.PGSQL.{port}"))),
            Host::Tcp(host) => Self::Tcp(host.clone(), port),
        }
    }

    async fn connect(&self) -> io::Result<Box<dyn Stream>> {
        Ok(match self {
            Self::Unix(path) => Box::new(UnixStream::connect(path).await?),
            Self::Tcp(host, port) => {
                let stream = TcpStream::connect((&**host, *port)).await?;
                stream.set_nodelay(true)?;
                Box::new(stream)
            }
        })
    }
}

impl From<PathBuf> for Target {
    fn from(socket: PathBuf) -> Self {
        Self::Unix(socket)
    }
}

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// A proxy on a port of its own. Connections outlive it.
pub struct Proxy {
    pub address: SocketAddr,
    shared: Arc<Shared>,
    accepting: tokio::task::AbortHandle,
}

/// What all connections have in common.
#[derive(Default)]
struct Shared {
    weather: watch::Sender<Weather>,
    trap: Mutex<Option<Trap>>,
    hang_up: Notify,
}

impl Shared {
    fn trap(&self) -> MutexGuard<'_, Option<Trap>> {
        self.trap.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Proxy {
    /// Listens, and forwards everything.
    pub async fn start(target: impl Into<Target>) -> Self {
        let target = target.into();
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
        let address = listener.local_addr().expect("address");
        let shared = Arc::new(Shared::default());
        let of_connections = Arc::clone(&shared);
        let accepting = tokio::spawn(async move {
            while let Ok((service, _)) = listener.accept().await {
                let (target, shared) = (target.clone(), Arc::clone(&of_connections));
                tokio::spawn(async move {
                    // While the server is away, connections are closed as soon as they are made.
                    let Ok(database) = target.connect().await else { return };
                    let line = Line { shared: &shared, tail: Vec::new() };
                    tokio::select! {
                        _ = line.forward(service, database) => (),
                        () = shared.hang_up.notified() => (),
                    }
                });
            }
        });
        Self { address, shared, accepting: accepting.abort_handle() }
    }

    /// A PostgreSQL URL with the proxy in place of its server.
    pub fn url(&self, url: &str) -> String {
        let (start, rest) = url.split_once('@').expect("a user");
        let (_, name) = rest.split_once('/').expect("a database");
        format!("{start}@{}/{name}", self.address)
    }

    pub fn set_weather(&self, weather: Weather) {
        self.shared.weather.send_replace(weather);
    }

    pub fn is_stalled(&self) -> bool {
        self.shared.weather.borrow().stalled
    }

    pub fn set_trap(&self, trap: Option<Trap>) {
        *self.shared.trap() = trap;
    }

    pub fn is_sprung(&self) -> bool {
        self.shared.trap().is_none()
    }

    /// Closes all connections.
    pub fn hang_up(&self) {
        self.shared.hang_up.notify_waiters();
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

/// One connection.
struct Line<'a> {
    shared: &'a Shared,
    /// The end of what the service sent before: a marker may arrive in parts.
    tail: Vec<u8>,
}

impl Line<'_> {
    /// Forwards data until either end closes, or the connection is cut.
    async fn forward(
        mut self,
        mut service: TcpStream,
        mut database: Box<dyn Stream>,
    ) -> io::Result<()> {
        let _ = service.set_nodelay(true);
        let mut requests = vec![0; 64 << 10];
        let mut answers = vec![0; 64 << 10];
        loop {
            tokio::select! {
                read = service.read(&mut requests) => {
                    let length = read?;
                    let data = &requests[..length];
                    let cut = self.spring(data, true);
                    match cut {
                        _ if length == 0 => return Ok(()),
                        Some(Cut::Before) => return Ok(()),
                        Some(Cut::During) => {
                            database.write_all(&data[..length / 2]).await?;
                            return Ok(());
                        }
                        Some(Cut::After) => {
                            database.write_all(data).await?;
                            return swallow_answer(&mut service, database).await;
                        }
                        Some(Cut::AfterThenStall) => {
                            database.write_all(data).await?;
                            let cut = swallow_answer(&mut service, database).await;
                            // Before the service notices that the connection is gone.
                            self.shared.weather.send_modify(|weather| weather.stalled = true);
                            return cut;
                        }
                        None => self.pass(data, &mut database).await?,
                    }
                }
                read = database.read(&mut answers) => {
                    let length = read?;
                    let data = &answers[..length];
                    if length == 0 || self.spring(data, false).is_some() {
                        return Ok(());
                    }
                    self.pass(data, &mut service).await?;
                }
            }
        }
    }

    /// Forwards data, as the weather allows.
    async fn pass<T: AsyncWriteExt + Unpin>(
        &mut self,
        mut data: &[u8],
        to: &mut T,
    ) -> io::Result<()> {
        let mut forecast = self.shared.weather.subscribe();
        while !data.is_empty() {
            let settled = forecast.wait_for(|weather| !weather.stalled).await;
            let Ok(weather) = settled.map(|weather| *weather) else { return Ok(()) };
            sleep(weather.delay).await;
            let length = weather.slice.unwrap_or(usize::MAX).min(data.len());
            to.write_all(&data[..length]).await?;
            data = &data[length..];
        }
        Ok(())
    }

    /// Whether this connection is to be cut now.
    fn spring(&mut self, data: &[u8], from_service: bool) -> Option<Cut> {
        let mut trap = self.shared.trap();
        let Some(armed) = &mut *trap else {
            self.tail.clear();
            return None;
        };
        let cut = match armed {
            Trap::Message { .. } if !from_service => return None,
            Trap::Message { marker, times, cut } => {
                self.tail.extend_from_slice(data);
                let found = self.tail.windows(marker.len()).filter(|window| *window == marker);
                *times = times.saturating_sub(found.count());
                let keep = self.tail.len().min(marker.len() - 1);
                self.tail.drain(..self.tail.len() - keep);
                (*times == 0).then_some(*cut)
            }
            Trap::Bytes(left) => {
                *left = left.saturating_sub(data.len());
                (*left == 0).then_some(Cut::During)
            }
        };
        if cut.is_some() {
            *trap = None;
        }
        cut
    }
}

/// Forwards what the service has left to send until a reply comes, which shows that it was executed, and
/// is lost.
async fn swallow_answer(service: &mut TcpStream, mut database: Box<dyn Stream>) -> io::Result<()> {
    let mut requests = vec![0; 64 << 10];
    let mut answers = vec![0; 64 << 10];
    loop {
        tokio::select! {
            read = service.read(&mut requests) => match read? {
                0 => return Ok(()),
                length => database.write_all(&requests[..length]).await?,
            },
            read = database.read(&mut answers) => return read.map(|_| ()),
        }
    }
}
