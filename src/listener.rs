//! The listener: accepts connections up to a limit, closes idle ones, and serves HTTP/1 and HTTP/2
//! on one port with a given service.

use std::{
    convert::Infallible, error::Error, io, net::SocketAddr, pin::pin, sync::Arc, time::Duration,
};

use http_body::Body;
use hyper::{
    Request, Response,
    body::{Bytes, Incoming},
    service::service_fn,
};
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
use tracing::{debug, info, warn};

use self::{
    connection_limit::{ConnectionGuard, ConnectionLimit},
    timeouts::TimeoutStream,
};
use crate::{
    limits::{
        CALL_WINDOW_BYTES, CONNECTION_WINDOW_BYTES, HTTP1_BUFFER_BYTES, KEEPALIVE_INTERVAL,
        KEEPALIVE_TIMEOUT, MAX_ACCEPT_BACKOFF, MAX_CALLS_PER_CONNECTION, MAX_HEADER_BYTES,
        MAX_RESETS_PER_CONNECTION, MIN_ACCEPT_BACKOFF, OPENING_TIMEOUT, SEND_BUFFER_BYTES,
        TCP_KEEPALIVE_IDLE, TCP_KEEPALIVE_INTERVAL,
    },
    metrics::Metrics,
    peer::Peer,
    tls::{self, ClientChain, Tls},
};

mod connection_limit;
pub(crate) mod files;
mod timeouts;

/// A bound listening socket.
#[derive(Debug)]
pub struct Listener {
    listener: TcpListener,
    address: SocketAddr,
    tls: Option<Tls>,
}

impl Listener {
    /// Binds an address. With `tls`, plaintext connections are closed.
    pub async fn bind(address: SocketAddr, tls: Option<Tls>) -> io::Result<Self> {
        let listener = TcpListener::bind(address).await?;
        let address = listener.local_addr()?;
        Ok(Self { listener, address, tls })
    }

    /// The address. Port 0 is replaced by the port that was assigned.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Whether connections are encrypted with TLS.
    pub fn is_encrypted(&self) -> bool {
        self.tls.is_some()
    }

    /// Serves until `closing` completes. Then it accepts no more connections, tells clients to go away
    /// (GOAWAY, or `connection: close`), and waits for the calls in progress, for any time. Connections
    /// that are still open when this is dropped are closed.
    pub async fn serve<S, F, B>(
        self,
        answer: S,
        metrics: Metrics,
        closing: impl Future<Output = ()>,
    ) where
        S: Fn(Request<Incoming>) -> F + Clone + Send + Sync + 'static,
        F: Future<Output = Response<B>> + Send + 'static,
        B: Body<Data = Bytes> + Send + 'static,
        B::Error: Into<Box<dyn Error + Send + Sync>>,
    {
        let Self { listener, tls, .. } = self;
        let (stopping, cut) = (CancellationToken::new(), CancellationToken::new());
        let context = ConnectionContext { answer, server: server(), tls, stopping };
        let _cut = cut.clone().drop_guard();
        let limit = ConnectionLimit::new(files::max_connections());
        let connections = TaskTracker::new();
        let (mut refused, mut failed) = (RateLimitedLog::default(), RateLimitedLog::default());
        let mut closing = pin!(closing);
        loop {
            let (stream, address) = tokio::select! {
                () = &mut closing => break,
                accepted = accept(&listener, &mut failed) => accepted,
            };
            let Some(guard) = limit.acquire(address.ip(), &metrics) else {
                if let Some(count) = refused.due() {
                    warn!(count, last = %address.ip(), "connection limit reached");
                }
                continue;
            };
            let handling = context.clone().handle_connection(stream, address, guard);
            connections.spawn(cut.clone().run_until_cancelled_owned(handling));
        }
        // The system refuses new connections from now on, so that clients try another instance.
        drop(listener);
        context.stopping.cancel();
        connections.close();
        connections.wait().await;
    }
}

/// Accepts a connection. Retries after errors of the system, for example without free file
/// descriptors, which become free as other connections end.
async fn accept(listener: &TcpListener, failed: &mut RateLimitedLog) -> (TcpStream, SocketAddr) {
    let mut pause = MIN_ACCEPT_BACKOFF;
    loop {
        match listener.accept().await {
            Ok(accepted) => return accepted,
            Err(error) if is_connection_error(&error) => (),
            Err(error) => {
                match failed.due() {
                    Some(count) => warn!(count, %error, "cannot accept connections"),
                    None => debug!(%error, "still cannot accept connections"),
                }
                sleep(pause).await;
                pause = MAX_ACCEPT_BACKOFF.min(pause * 2);
            }
        }
    }
}

/// Whether an error concerns only the connection that was about to be accepted.
fn is_connection_error(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted)
}

/// The HTTP settings. All others are the defaults of hyper, for example the limit of h2 on streams
/// that are reset before they are accepted.
fn server() -> auto::Builder<TokioExecutor> {
    let mut server = auto::Builder::new(TokioExecutor::new());
    server
        .http1()
        .timer(TokioTimer::new())
        // Also the idle timeout of a connection, because it restarts after each response.
        .header_read_timeout(OPENING_TIMEOUT)
        .max_buf_size(HTTP1_BUFFER_BYTES);
    server
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(KEEPALIVE_INTERVAL)
        .keep_alive_timeout(KEEPALIVE_TIMEOUT)
        .max_concurrent_streams(MAX_CALLS_PER_CONNECTION)
        .max_local_error_reset_streams(MAX_RESETS_PER_CONNECTION)
        .initial_stream_window_size(CALL_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_header_list_size(MAX_HEADER_BYTES)
        .max_send_buf_size(SEND_BUFFER_BYTES);
    server
}

/// State that all connections share.
#[derive(Clone)]
struct ConnectionContext<S> {
    answer: S,
    server: auto::Builder<TokioExecutor>,
    tls: Option<Tls>,
    stopping: CancellationToken,
}

impl<S, F, B> ConnectionContext<S>
where
    S: Fn(Request<Incoming>) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Response<B>> + Send + 'static,
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    /// Serves a connection until it ends.
    async fn handle_connection(
        self,
        stream: TcpStream,
        address: SocketAddr,
        _guard: ConnectionGuard,
    ) {
        if let Err(error) = set_options(&stream) {
            debug!(%error, "the client closed a connection immediately");
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
                // Closing the connection cancels its calls in progress.
                tokio::select! {
                    () = self.serve(stream, peer) => (),
                    error = tls.expired(chain) => {
                        const MESSAGE: &str =
                            "connection closed: client certificate is no longer valid";
                        info!(%address, %error, "{MESSAGE}");
                    }
                }
            }
            Some(Ok(Err(error))) => debug!(%error, "TLS handshake failed"),
            Some(Err(_)) => debug!("TLS handshake timed out"),
            None => (),
        }
    }

    async fn serve(
        &self,
        stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
        peer: Peer,
    ) {
        let answer = self.answer.clone();
        let answer = service_fn(move |mut request: Request<Incoming>| {
            request.extensions_mut().insert(peer.clone());
            let answer = answer(request);
            async { Ok::<_, Infallible>(answer.await) }
        });
        let stream = TokioIo::new(TimeoutStream::new(stream));
        let mut connection = pin!(self.server.serve_connection(stream, answer));
        let served = tokio::select! {
            served = &mut connection => served,
            () = self.stopping.cancelled() => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        };
        if let Err(error) = served {
            debug!(error, "connection failed");
        }
    }
}

/// Disables Nagle's algorithm and enables TCP keepalive.
fn set_options(stream: &TcpStream) -> io::Result<()> {
    let keepalive =
        TcpKeepalive::new().with_time(TCP_KEEPALIVE_IDLE).with_interval(TCP_KEEPALIVE_INTERVAL);
    stream.set_nodelay(true)?;
    SockRef::from(stream).set_tcp_keepalive(&keepalive)
}

/// Minimum time between log lines about the same kind of connection error.
const WARNING_INTERVAL: Duration = Duration::from_secs(10);

/// Limits a log line to one per [`WARNING_INTERVAL`].
#[derive(Debug, Default)]
struct RateLimitedLog {
    last: Option<Instant>,
    count: u64,
}

impl RateLimitedLog {
    /// The number of events since the last log line, if a line is due now.
    fn due(&mut self) -> Option<u64> {
        self.count += 1;
        if self.last.is_some_and(|last| last.elapsed() < WARNING_INTERVAL) {
            return None;
        }
        self.last = Some(Instant::now());
        Some(std::mem::take(&mut self.count))
    }
}
