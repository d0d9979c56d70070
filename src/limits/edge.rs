//! Limits of connections, calls, requests and responses, subscriptions, and shares of callers.

use std::time::Duration;

use super::{
    EVENT_ENVELOPE_BYTES, MAX_MESSAGE_BYTES, MAX_PAGE_BYTES, MAX_PAGE_EVENTS, MAX_REQUEST_EVENTS,
};

/// Timeout of a call until its response begins. Longer than the longest publish, which may take
/// [`super::COMMIT_RETRY`] and the attempt that began last.
pub const CALL_TIMEOUT: Duration = Duration::from_secs(90);

/// Maximum number of calls in progress over all connections, streams included. Besides its events,
/// one takes some ten KiB.
pub const CALLS: usize = 8_192;

/// Maximum number of unauthenticated calls per connection: health checks, files of the dashboard,
/// rejected calls. A limit per connection keeps one client from blocking the health checks of
/// others. A browser needs a handful at once.
pub const UNAUTHENTICATED_CALLS: usize = 16;

/// Timeout of a call that needs no credentials until its response begins, including its request of
/// a few bytes.
pub const UNAUTHENTICATED_TIMEOUT: Duration = Duration::from_secs(5);

/// Maximum number of long-lived calls that need no credentials: health watches and reflection. One
/// address has its share ([`CALLER_SHARE`]).
pub const WATCHES: usize = 512;

/// Idle timeout of a reflection stream. Tools send one request after another, and can open a new
/// stream.
pub const REFLECTION_IDLE_TIMEOUT: Duration = Duration::from_secs(60);

/// Requests up to this size in bytes are read without a permit, so that small requests do not wait
/// for large ones. [`CALLS`] limits their number.
pub const SMALL_REQUEST_BYTES: usize = 32 << 10;

/// Maximum bytes of larger requests that are being received, over all connections. Beyond it
/// requests wait, and flow control blocks their senders. Enough for 16 of the largest.
pub const READING_BYTES: usize = 16 * MAX_MESSAGE_BYTES;

/// Timeout for receiving a larger message, so that it does not block others: the largest one takes
/// this long at 2.5 Mbit/s.
pub const READING_TIMEOUT: Duration = Duration::from_secs(30);

/// Idle timeout while a larger message or HTTP body is received. A working network pauses for far
/// less, and an idle sender must not hold the permits.
pub const READING_STALL_TIMEOUT: Duration = Duration::from_secs(5);

/// Idle timeout of a PublishStream, so that forgotten streams do not use up their caller's share of
/// [`CALLS`]. No request waits this long for its response ([`CALL_TIMEOUT`]), and a new stream
/// costs one round trip.
pub const STREAM_IDLE_TIMEOUT: Duration = Duration::from_secs(15 * 60);

/// Size in bytes of the chunks of a response that are passed to a connection. Smaller responses
/// need no permit: this much of each call may be buffered in the connection, and [`CALLS`] limits
/// their number.
pub const SMALL_ANSWER_BYTES: usize = 64 << 10;

/// Maximum bytes of responses to listings and lookups that are being read or sent, over all
/// connections; beyond it calls are rejected before anything is read. Enough for 40 of the largest.
pub const LISTING_BYTES: usize = 192 << 20;

/// Bytes of [`LISTING_BYTES`] that a response reserves until its size is known: a page in JSON,
/// where escapes may double the size of names.
pub const LISTING_RESERVED_BYTES: usize =
    MAX_PAGE_BYTES + 2 * MAX_PAGE_EVENTS * EVENT_ENVELOPE_BYTES;

/// How long a listing or lookup waits for its reservation. Reads end soon unless the store is slow;
/// responses that clients do not read take longer.
pub const ANSWER_WAIT: Duration = Duration::from_secs(5);

/// Maximum bytes of other larger responses that are being sent, over all connections; beyond it
/// calls are rejected. Separate from listings, because it includes publishes, whose events are
/// stored by the time they are rejected.
pub const ANSWER_BYTES: usize = 64 << 20;

/// Timeout for sending a larger response, after which it is discarded: the largest one takes this
/// long at 0.6 Mbit/s.
pub const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);

/// Maximum number of subscriptions over all protocols. An idle one takes some ten KiB. Events that
/// are not received are limited by [`SUBSCRIPTION_BYTES`], [`SUBSCRIPTION_FREE_BYTES`] and
/// [`SEND_BUFFER_BYTES`].
pub const SUBSCRIBERS: usize = 2_048;

/// Maximum bytes of events that were read for subscriptions and not sent yet. Without permits,
/// pages are cut to [`SUBSCRIPTION_FREE_BYTES`], and larger events wait. Enough for 20
/// subscriptions with pages of the largest size; others read page by page, as fast as the store
/// allows.
pub const SUBSCRIPTION_BYTES: usize = 128 << 20;

/// Bytes of a page, over all lanes, that need no permits, so that subscribers to small events never
/// wait for those to large ones. A waiting page and two frames on their way take 96 MiB for all
/// [`SUBSCRIBERS`].
pub const SUBSCRIPTION_FREE_BYTES: usize = 16 << 10;

/// Bytes that an event occupies besides its text while it waits for a subscriber: its struct, its
/// cursor as numbers and as text, and the allocations of its names.
pub const FEED_EVENT_OVERHEAD: usize = 512;

/// Bytes of a subscription frame that are passed to a connection at once: one HTTP/2 frame. This
/// much of each subscription may be buffered in a stalled connection.
pub const SUBSCRIPTION_PORTION_BYTES: usize = 16 << 10;

/// Timeout for sending a frame, after which a subscription ends: the largest frame takes this long
/// at 0.6 Mbit/s. Idle subscriptions are not affected.
pub const SUBSCRIBER_STALL_TIMEOUT: Duration = Duration::from_secs(60);

/// Maximum number of connections. Received bytes belong to calls, whose number is limited by
/// [`CALLS`], each with [`CALL_WINDOW_BYTES`].
pub const CONNECTIONS: usize = 10_000;

/// Fraction of the connections that one address may use: one half. Behind a load balancer all have
/// one address, so it is large.
pub const ADDRESS_SHARE: usize = 2;

/// Fraction of each limit that one caller may use: an identity of the access file, or an address if
/// callers are not authenticated. One half, so that no single caller excludes the others. Behind a
/// proxy all callers may have one address, and half of each limit in total.
pub const CALLER_SHARE: usize = 2;

/// File descriptors reserved for everything but client connections: a dozen database connections
/// with up to three files each, and files of the program. At most half of the system's limit.
pub const OTHER_FILES: usize = 128;

/// Timeout of a connection for its TLS handshake, then for the first bytes of its protocol, and
/// over HTTP/1 for each request header.
pub const OPENING_TIMEOUT: Duration = Duration::from_secs(10);

/// Number of bytes that determine the protocol: the length of the HTTP/2 preface. HTTP/1 requests
/// are rarely shorter, and the header timeout applies to them.
pub const OPENING_BYTES: usize = 24;

/// Write stall timeout of a connection. Over HTTP/2, [`KEEPALIVE`] also detects dead peers.
pub const STALL_TIMEOUT: Duration = Duration::from_secs(30);

/// How often the client certificate of an open connection is verified again, besides each change of
/// the CA certificates: a connection may outlive its certificate this long. One check takes some
/// 0.1 ms, so [`CONNECTIONS`] take a tenth of a core.
pub const CLIENT_CERTIFICATE_INTERVAL: Duration = Duration::from_secs(10);

/// Minimum and maximum delay after a failed accept, for example without free file descriptors.
pub const ACCEPT_BACKOFF: (Duration, Duration) =
    (Duration::from_millis(100), Duration::from_secs(1));

/// Maximum bytes of an access file. It is read every few seconds.
pub const MAX_ACCESS_FILE_BYTES: usize = 1 << 20;

/// Maximum number of identities. Each call compares its token with those of all.
pub const MAX_IDENTITIES: usize = 1_000;

/// Maximum number of tokens per identity: the old and the new one during a rotation.
pub const MAX_IDENTITY_TOKENS: usize = 2;

/// Minimum burst of a rate limit, in events: a request of the largest size must succeed eventually.
pub const MIN_RATE_BURST: u32 = MAX_REQUEST_EVENTS as u32;

/// Maximum events per second, and maximum burst, of a rate limit. Above what any database can
/// store.
pub const MAX_RATE_EVENTS: u32 = 10_000_000;

/// How often the access file is checked. Also how long a throttled stream takes to notice a higher
/// limit.
pub const ACCESS_POLL_INTERVAL: Duration = Duration::from_secs(2);

/// Maximum number of calls in progress per connection.
pub const CALLS_PER_CONNECTION: u32 = 1_024;

/// Maximum number of streams that a client can make the server reset, after which the connection is
/// closed: protection against reset floods (RUSTSEC-2024-0003).
pub const RESETS_PER_CONNECTION: usize = 1_024;

/// Maximum bytes of the headers of an HTTP/2 request. Ours have some hundred.
pub const MAX_HEADER_BYTES: u32 = 16 << 10;

/// Read buffer of an HTTP/1 connection in bytes, which also limits request headers. The URL of a
/// subscription may have 64 KiB, for many topics.
pub const HTTP1_BUFFER_BYTES: usize = 128 << 10;

/// Send buffer of an HTTP/2 stream in bytes: one chunk of a response.
pub const SEND_BUFFER_BYTES: usize = SMALL_ANSWER_BYTES;

/// HTTP/2 receive window per stream, in bytes. A larger one is not faster.
pub const CALL_WINDOW_BYTES: u32 = 256 << 10;

/// HTTP/2 receive window per connection, in bytes. h2 closes a connection whose queued small frames
/// have an overhead of more than half of this, which throttled producers of small requests must not
/// reach.
pub const CONNECTION_WINDOW_BYTES: u32 = 32 << 20;

/// How often an idle connection is probed, and the timeout of the probe.
pub const KEEPALIVE: (Duration, Duration) = (Duration::from_secs(30), Duration::from_secs(10));

/// TCP keepalive: idle time before the first probe, and the interval of probes.
pub const TCP_KEEPALIVE: (Duration, Duration) = (Duration::from_secs(60), Duration::from_secs(15));
