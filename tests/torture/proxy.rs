//! What stands between an instance and PostgreSQL: a network that breaks when it is told to.

use std::{
    net::SocketAddr,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream, UnixStream},
    sync::watch,
    time::sleep,
};

/// Where a connection is cut, seen from a message of the service to the database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cut {
    /// It never arrives.
    Before,
    /// Half of it arrives.
    During,
    /// It arrives and is carried out, but its answer is lost.
    After,
    /// The same, and the network is stalled from then on.
    AfterThenStall,
}

/// What cuts one connection, once.
#[derive(Debug, Clone)]
pub enum Trap {
    /// A message with these bytes passes.
    Message { marker: &'static [u8], cut: Cut },
    /// So many more bytes have passed, in either direction, over all connections.
    Bytes(usize),
}

/// How the network is.
#[derive(Debug, Clone, Copy, Default)]
pub struct Weather {
    /// Whether nothing passes, and nobody is told.
    pub stalled: bool,
    /// How long everything takes.
    pub delay: Duration,
    /// How many bytes pass at once, if that is bounded.
    pub slice: Option<usize>,
}

pub struct Proxy {
    pub address: SocketAddr,
    weather: Arc<watch::Sender<Weather>>,
    trap: Arc<Mutex<Option<Trap>>>,
    accepting: tokio::task::AbortHandle,
}

impl Proxy {
    /// Listens, and passes everything on to the server's socket.
    pub async fn start(socket: PathBuf) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
        let address = listener.local_addr().expect("address");
        let weather = Arc::new(watch::Sender::new(Weather::default()));
        let stalling = Arc::clone(&weather);
        let trap = Arc::new(Mutex::new(None));
        let traps = Arc::clone(&trap);
        let accepting = tokio::spawn(async move {
            while let Ok((service, _)) = listener.accept().await {
                let (socket, traps) = (socket.clone(), Arc::clone(&traps));
                let (stalling, forecast) = (Arc::clone(&stalling), stalling.subscribe());
                let line = Line { forecast, stalling, traps, tail: Vec::new() };
                tokio::spawn(async move {
                    // While the server is away, connections are closed as soon as they are made.
                    if let Ok(database) = UnixStream::connect(socket).await {
                        let _ = line.forward(service, database).await;
                    }
                });
            }
        });
        Self { address, weather, trap, accepting: accepting.abort_handle() }
    }

    pub fn set_weather(&self, weather: Weather) {
        self.weather.send_replace(weather);
    }

    pub fn is_stalled(&self) -> bool {
        self.weather.borrow().stalled
    }

    pub fn set_trap(&self, trap: Option<Trap>) {
        *self.trap.lock().unwrap_or_else(PoisonError::into_inner) = trap;
    }

    pub fn is_sprung(&self) -> bool {
        self.trap.lock().unwrap_or_else(PoisonError::into_inner).is_none()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

/// One connection.
struct Line {
    forecast: watch::Receiver<Weather>,
    stalling: Arc<watch::Sender<Weather>>,
    traps: Arc<Mutex<Option<Trap>>>,
    /// The end of what the service sent before: a marker may arrive in parts.
    tail: Vec<u8>,
}

impl Line {
    /// Passes data on until either end closes, or something cuts it.
    async fn forward(
        mut self,
        mut service: TcpStream,
        mut database: UnixStream,
    ) -> std::io::Result<()> {
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
                            self.stalling.send_modify(|weather| weather.stalled = true);
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

    /// Passes data on, as the weather allows.
    async fn pass<T: AsyncWriteExt + Unpin>(
        &mut self,
        mut data: &[u8],
        to: &mut T,
    ) -> std::io::Result<()> {
        while !data.is_empty() {
            let settled = self.forecast.wait_for(|weather| !weather.stalled).await;
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
        let mut armed = self.traps.lock().unwrap_or_else(PoisonError::into_inner);
        let cut = match armed.as_mut()? {
            Trap::Message { marker, cut } => {
                if !from_service {
                    return None;
                }
                self.tail.extend_from_slice(data);
                let found = self.tail.windows(marker.len()).any(|window| window == *marker);
                let keep = self.tail.len().min(marker.len() - 1);
                self.tail.drain(..self.tail.len() - keep);
                found.then_some(*cut)
            }
            Trap::Bytes(left) => {
                *left = left.saturating_sub(data.len());
                (*left == 0).then_some(Cut::During)
            }
        };
        if cut.is_some() {
            *armed = None;
        }
        cut
    }
}

/// Passes on what the service has left to send until an answer comes, which shows that it was
/// carried out, and is lost.
async fn swallow_answer(service: &mut TcpStream, mut database: UnixStream) -> std::io::Result<()> {
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
