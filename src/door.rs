//! How connections come in: taken in up to a bound, cut when they do not come to the point, and served
//! with HTTP/1 and HTTP/2 on one port. What they ask for is answered elsewhere.

use std::{io, net::SocketAddr, pin::pin, sync::Arc};

use hyper::{body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto,
};
use socket2::{SockRef, TcpKeepalive};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    time::{Instant, sleep, timeout},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tonic::{
    body::Body,
    codegen::{Service, http::Request},
};
use tracing::{debug, info, warn};

use self::{
    headcount::{Headcount, Place},
    patience::Patient,
};
use crate::{
    grpc::Router,
    limits::{
        ACCEPT_BACKOFF, CALL_WINDOW_BYTES, CALLS_PER_CONNECTION, CONNECTION_WINDOW_BYTES,
        HTTP1_BUFFER_BYTES, KEEPALIVE, MAX_HEADER_BYTES, OPENING_TIMEOUT, RESETS_PER_CONNECTION,
        SEND_BUFFER_BYTES, TCP_KEEPALIVE, WARNING_INTERVAL,
    },
    metrics::Metrics,
    peer::Peer,
    tls::{self, ClientChain, Tls},
};

pub mod files;
mod headcount;
mod patience;

/// An address that is listened on, and how those who come are taken in.
#[derive(Debug)]
pub struct Door {
    listener: TcpListener,
    address: SocketAddr,
    tls: Option<Tls>,
}

impl Door {
    /// Listens on an address. With `tls`, all that comes in plaintext is cut.
    pub async fn open(address: SocketAddr, tls: Option<Tls>) -> io::Result<Self> {
        let listener = TcpListener::bind(address).await?;
        let address = listener.local_addr()?;
        Ok(Self { listener, address, tls })
    }

    /// The address, with the port that was chosen if port 0 was asked for.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Whether it speaks TLS.
    pub fn is_encrypted(&self) -> bool {
        self.tls.is_some()
    }

    /// Serves until `closing` is done. Then nobody is let in any more, everybody who is connected is
    /// told so, and calls in progress are waited for without a bound; whoever is still connected when
    /// this is dropped is cut.
    pub async fn serve(self, router: Router, metrics: Metrics, closing: impl Future<Output = ()>) {
        let Self { listener, tls, .. } = self;
        let (stopping, cut) = (CancellationToken::new(), CancellationToken::new());
        let served = Served { router, server: server(), tls, stopping };
        let _cut = cut.clone().drop_guard();
        let headcount = Headcount::new(files::room());
        let connections = TaskTracker::new();
        let (mut refused, mut failed) = (Seldom::default(), Seldom::default());
        let mut closing = pin!(closing);
        loop {
            let (stream, address) = tokio::select! {
                () = &mut closing => break,
                accepted = accept(&listener, &mut failed) => accepted,
            };
            let Some(place) = headcount.take(address.ip(), &metrics) else {
                if let Some(count) = refused.told() {
                    warn!(count, last = %address.ip(), "there is no room for more connections");
                }
                continue;
            };
            let welcome = served.clone().welcome(stream, address, place);
            connections.spawn(cut.clone().run_until_cancelled_owned(welcome));
        }
        // Whoever comes now is refused by the system, and tries another instance.
        drop(listener);
        served.stopping.cancel();
        connections.close();
        connections.wait().await;
    }
}

/// The next connection. While the system has none to give, as without free file descriptors, others go
/// on and may end.
async fn accept(listener: &TcpListener, failed: &mut Seldom) -> (TcpStream, SocketAddr) {
    let mut pause = ACCEPT_BACKOFF.0;
    loop {
        match listener.accept().await {
            Ok(accepted) => return accepted,
            Err(error) if is_of_one_connection(&error) => (),
            Err(error) => {
                match failed.told() {
                    Some(count) => warn!(count, %error, "cannot take in connections"),
                    None => debug!(%error, "still cannot take in connections"),
                }
                sleep(pause).await;
                pause = ACCEPT_BACKOFF.1.min(pause * 2);
            }
        }
    }
}

/// Whether only whoever was about to be taken in is concerned.
fn is_of_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted)
}

/// How HTTP is spoken. What is not set is as hyper has it, as the guard of h2 against calls that are reset
/// before they begin.
fn server() -> auto::Builder<TokioExecutor> {
    let mut server = auto::Builder::new(TokioExecutor::new());
    server
        .http1()
        .timer(TokioTimer::new())
        // Counts from the last answer as well, so it bounds how long a connection idles.
        .header_read_timeout(OPENING_TIMEOUT)
        .max_buf_size(HTTP1_BUFFER_BYTES);
    server
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(KEEPALIVE.0)
        .keep_alive_timeout(KEEPALIVE.1)
        .max_concurrent_streams(CALLS_PER_CONNECTION)
        .max_local_error_reset_streams(RESETS_PER_CONNECTION)
        .initial_stream_window_size(CALL_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_header_list_size(MAX_HEADER_BYTES)
        .max_send_buf_size(SEND_BUFFER_BYTES);
    server
}

/// What all connections have in common.
#[derive(Clone)]
struct Served {
    router: Router,
    server: auto::Builder<TokioExecutor>,
    tls: Option<Tls>,
    stopping: CancellationToken,
}

impl Served {
    /// Serves a connection to its end.
    async fn welcome(self, stream: TcpStream, address: SocketAddr, _place: Place) {
        if let Err(error) = prepare(&stream) {
            debug!(%error, "a connection was gone at once");
            return;
        }
        let Some(tls) = &self.tls else {
            let peer = Peer { address, names: Arc::default() };
            return self.serve(stream, peer).await;
        };
        let handshake = timeout(OPENING_TIMEOUT, tls.accept(stream));
        let handshake = self.stopping.run_until_cancelled(handshake);
        match handshake.await {
            Some(Ok(Ok(stream))) => {
                let peer = Peer { address, names: tls::names(&stream) };
                let chain = ClientChain::of(&stream);
                // Calls in progress end with their connection.
                tokio::select! {
                    () = self.serve(stream, peer) => (),
                    error = tls.expired(chain) => {
                        let why = "closed a connection: its client certificate is no longer valid";
                        info!(%address, %error, "{why}");
                    }
                }
            }
            Some(Ok(Err(error))) => debug!(%error, "a TLS handshake failed"),
            Some(Err(_)) => debug!("a TLS handshake took too long"),
            None => (),
        }
    }

    async fn serve(
        &self,
        stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
        peer: Peer,
    ) {
        let router = self.router.clone();
        let answer = service_fn(move |mut request: Request<Incoming>| {
            request.extensions_mut().insert(peer.clone());
            // The routes are always ready.
            router.clone().call(request.map(Body::new))
        });
        let stream = TokioIo::new(Patient::new(stream));
        let mut connection = pin!(self.server.serve_connection(stream, answer));
        let served = tokio::select! {
            served = &mut connection => served,
            () = self.stopping.cancelled() => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        };
        if let Err(error) = served {
            debug!(error, "a connection broke");
        }
    }
}

/// Small answers are sent at once, and whoever vanished is noticed by the system as well.
fn prepare(stream: &TcpStream) -> io::Result<()> {
    let (idle, interval) = TCP_KEEPALIVE;
    let keepalive = TcpKeepalive::new().with_time(idle).with_interval(interval);
    stream.set_nodelay(true)?;
    SockRef::from(stream).set_tcp_keepalive(&keepalive)
}

/// Says something that may happen very often only once in a while.
#[derive(Debug, Default)]
struct Seldom {
    last: Option<Instant>,
    count: u64,
}

impl Seldom {
    /// How often it has happened since it was said last, if it is time to say so.
    fn told(&mut self) -> Option<u64> {
        self.count += 1;
        if self.last.is_some_and(|last| last.elapsed() < WARNING_INTERVAL) {
            return None;
        }
        self.last = Some(Instant::now());
        Some(std::mem::take(&mut self.count))
    }
}
