//! Limits of the server: connections, calls, request and response bodies, and shares of callers.

use std::time::Duration;

use super::{
    EVENT_ENVELOPE_BYTES, MAX_MESSAGE_BYTES, MAX_PAGE_BYTES, MAX_PAGE_EVENTS, MAX_QUEUE_BYTES,
    MAX_SUBSCRIBERS, MAX_SUBSCRIPTION_BYTES, STATEMENT_TIMEOUT, SUBSCRIPTION_CHUNK_BYTES,
    SUBSCRIPTION_FREE_BYTES,
};

/// Maximum number of concurrent listings with a source filter, over all callers; one caller has its
/// share ([`CALLER_SHARE`]). No index supports them, so each may read all events and use a core.
/// Together with [`super::MAX_FEED_READS`] they leave connections for all other reads.
pub const MAX_SCANS: usize = 2;

/// How long such a listing waits for its turn: as long as the previous one may take.
pub const SCAN_WAIT: Duration = STATEMENT_TIMEOUT;

/// How often the health of the store is checked.
pub const HEALTH_INTERVAL: Duration = Duration::from_secs(2);

/// How long a shutdown waits for calls in progress.
pub const DRAIN_TIMEOUT: Duration = Duration::from_secs(15);

/// How long a shutdown then waits for queued events. Together with [`DRAIN_TIMEOUT`] less than the
/// 30 s after which Kubernetes kills a container.
pub const FLUSH_TIMEOUT: Duration = Duration::from_secs(10);

/// Maximum memory in bytes, whatever callers do: the sum of all limits, as explained in
/// docs/operations.md. It includes 16 KiB per call, 2 KiB per unauthenticated call, 32 KiB of TLS
/// state per connection, and 256 MiB for the program with its caches.
pub const MAX_MEMORY_BYTES: usize = MAX_QUEUE_BYTES
    + MAX_READING_BYTES
    + MAX_LISTING_BYTES
    + MAX_RESPONSES_BYTES
    + MAX_SUBSCRIPTION_BYTES
    + MAX_SUBSCRIBERS * (SUBSCRIPTION_FREE_BYTES + SUBSCRIPTION_CHUNK_BYTES)
    + MAX_CALLS * (CALL_WINDOW_BYTES as usize + SEND_BUFFER_BYTES + (16 << 10))
    + MAX_CONNECTIONS * (HTTP1_BUFFER_BYTES + (32 << 10) + MAX_UNAUTHENTICATED_CALLS * (2 << 10))
    + (256 << 20);

/// Timeout of a call until its response begins. Longer than the longest publish, which may take
/// [`super::COMMIT_RETRY`] and the attempt that began last.
pub const CALL_TIMEOUT: Duration = Duration::from_secs(90);

/// Maximum number of calls in progress over all connections, streams included. Besides its events,
/// one takes some ten KiB.
pub const MAX_CALLS: usize = 8_192;

/// Maximum number of unauthenticated calls per connection: health checks, files of the dashboard,
/// rejected calls. A limit per connection keeps one client from blocking the health checks of
/// others. A browser needs a handful at once.
pub const MAX_UNAUTHENTICATED_CALLS: usize = 16;

/// Timeout of a call that needs no credentials until its response begins, including its request of
/// a few bytes.
pub const UNAUTHENTICATED_TIMEOUT: Duration = Duration::from_secs(5);

/// Maximum number of long-lived calls that need no credentials: health watches and reflection. One
/// address has its share ([`CALLER_SHARE`]).
pub const MAX_WATCHES: usize = 512;

/// Idle timeout of a reflection stream. Tools send one request after another, and can open a new
/// stream.
pub const REFLECTION_IDLE_TIMEOUT: Duration = Duration::from_secs(60);

/// Requests up to this size in bytes are read without a permit, so that small requests do not wait
/// for large ones. [`MAX_CALLS`] limits their number.
pub const SMALL_REQUEST_BYTES: usize = 32 << 10;

/// Maximum bytes of larger requests that are being received, over all connections. Beyond it
/// requests wait, and flow control blocks their senders. Enough for 16 of the largest.
pub const MAX_READING_BYTES: usize = 16 * MAX_MESSAGE_BYTES;

/// Timeout for receiving a larger message, so that it does not block others: the largest one takes
/// this long at 2.5 Mbit/s.
pub const READING_TIMEOUT: Duration = Duration::from_secs(30);

/// Idle timeout while a larger message or HTTP body is received. A working network pauses for far
/// less, and an idle sender must not hold the permits.
pub const READING_STALL_TIMEOUT: Duration = Duration::from_secs(5);

/// Idle timeout of a PublishStream, so that forgotten streams do not use up their caller's share of
/// [`MAX_CALLS`]. No request waits this long for its response ([`CALL_TIMEOUT`]), and a new stream
/// costs one round trip.
pub const STREAM_IDLE_TIMEOUT: Duration = Duration::from_secs(15 * 60);

/// Size in bytes of the chunks of a response that are passed to a connection. Smaller responses
/// need no permit: this much of each call may be buffered in the connection, and [`MAX_CALLS`] limits
/// their number.
pub const RESPONSE_CHUNK_BYTES: usize = 64 << 10;

/// Maximum bytes of responses to listings and lookups that are being read or sent, over all
/// connections; beyond it calls are rejected before anything is read. Enough for 40 of the largest.
pub const MAX_LISTING_BYTES: usize = 192 << 20;

/// Bytes of [`MAX_LISTING_BYTES`] that a response reserves until its size is known: a page in JSON,
/// where escapes may double the size of names.
pub const LISTING_RESERVED_BYTES: usize =
    MAX_PAGE_BYTES + 2 * MAX_PAGE_EVENTS * EVENT_ENVELOPE_BYTES;

/// How long a listing or lookup waits for its reservation. Reads end soon unless the store is slow;
/// responses that clients do not read take longer.
pub const RESPONSE_WAIT: Duration = Duration::from_secs(5);

/// Maximum bytes of other larger responses that are being sent, over all connections; beyond it
/// calls are rejected. Separate from listings, because it includes publishes, whose events are
/// stored by the time they are rejected.
pub const MAX_RESPONSES_BYTES: usize = 64 << 20;

/// Timeout for sending a larger response, after which it is discarded: the largest one takes this
/// long at 0.6 Mbit/s.
pub const RESPONSE_TIMEOUT: Duration = Duration::from_secs(60);

/// Maximum number of connections. Received bytes belong to calls, whose number is limited by
/// [`MAX_CALLS`], each with [`CALL_WINDOW_BYTES`].
pub const MAX_CONNECTIONS: usize = 10_000;

/// Fraction of the connections that one address may use: one half. Behind a load balancer all have
/// one address, so it is large.
pub const ADDRESS_SHARE: usize = 2;

/// Fraction of each limit that one caller may use: an identity of the access file, or an address if
/// callers are not authenticated. One half, so that no single caller excludes the others. Behind a
/// proxy all callers may have one address, and half of each limit in total.
pub const CALLER_SHARE: usize = 2;

/// File descriptors reserved for everything but client connections: a dozen database connections
/// with up to three files each, and files of the program. At most half of the system's limit.
pub const RESERVED_FILES: usize = 128;

/// Timeout of a connection for its TLS handshake, then for the first bytes of its protocol, and
/// over HTTP/1 for each request header.
pub const OPENING_TIMEOUT: Duration = Duration::from_secs(10);

/// Number of bytes that determine the protocol: the length of the HTTP/2 preface. HTTP/1 requests
/// are rarely shorter, and the header timeout applies to them.
pub const OPENING_BYTES: usize = 24;

/// Write stall timeout of a connection. Over HTTP/2, [`KEEPALIVE_INTERVAL`] also detects dead peers.
pub const STALL_TIMEOUT: Duration = Duration::from_secs(30);

/// How often the client certificate of an open connection is verified again, besides each change of
/// the CA certificates: a connection may outlive its certificate this long. One check takes some
/// 0.1 ms, so [`MAX_CONNECTIONS`] take a tenth of a core.
pub const CLIENT_CERTIFICATE_INTERVAL: Duration = Duration::from_secs(10);

/// Delay after a failed accept, for example without free file descriptors. It doubles each time.
pub const MIN_ACCEPT_BACKOFF: Duration = Duration::from_millis(100);

/// Maximum delay after a failed accept.
pub const MAX_ACCEPT_BACKOFF: Duration = Duration::from_secs(1);

/// Maximum number of calls in progress per connection.
pub const MAX_CALLS_PER_CONNECTION: u32 = 1_024;

/// Maximum number of streams that a client can make the server reset, after which the connection is
/// closed: protection against reset floods (RUSTSEC-2024-0003).
pub const MAX_RESETS_PER_CONNECTION: usize = 1_024;

/// Maximum bytes of the headers of an HTTP/2 request. Ours have some hundred.
pub const MAX_HEADER_BYTES: u32 = 16 << 10;

/// Read buffer of an HTTP/1 connection in bytes, which also limits request headers. The URL of a
/// subscription may have 64 KiB, for many topics.
pub const HTTP1_BUFFER_BYTES: usize = 128 << 10;

/// Send buffer of an HTTP/2 stream in bytes: one chunk of a response.
pub const SEND_BUFFER_BYTES: usize = RESPONSE_CHUNK_BYTES;

/// HTTP/2 receive window per stream, in bytes. A larger one is not faster.
pub const CALL_WINDOW_BYTES: u32 = 256 << 10;

/// HTTP/2 receive window per connection, in bytes. h2 closes a connection whose queued small frames
/// have an overhead of more than half of this, which throttled producers of small requests must not
/// reach.
pub const CONNECTION_WINDOW_BYTES: u32 = 32 << 20;

/// How often an idle connection is probed.
pub const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(30);

/// Timeout of a probe.
pub const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(10);

/// Idle time before the first TCP keepalive probe.
pub const TCP_KEEPALIVE_IDLE: Duration = Duration::from_secs(60);

/// Interval of TCP keepalive probes.
pub const TCP_KEEPALIVE_INTERVAL: Duration = Duration::from_secs(15);
