//! Bounds at the edge: connections, calls, what is read and answered, subscriptions, and shares of callers.

use std::time::Duration;

use super::{
    EVENT_ENVELOPE_BYTES, MAX_MESSAGE_BYTES, MAX_PAGE_BYTES, MAX_PAGE_EVENTS, MAX_REQUEST_EVENTS,
};

/// How long a call may take until its answer begins. It must never hide what a publish is told once the
/// store was away for too long, which takes [`super::COMMIT_RETRY`] and the try that began last.
pub const CALL_TIMEOUT: Duration = Duration::from_secs(90);

/// Calls in progress over all connections, streams included. What one costs beside its events, some ten
/// KiB, stays far below what else the service takes.
pub const CALLS: usize = 8_192;

/// Calls in progress on one connection whose callers have not authenticated: health checks, the parts of
/// the dashboard, refusals. Each connection has a bound of its own, so that strangers cannot take what the
/// health checks of others need. A browser asks for a handful at once.
pub const UNAUTHENTICATED_CALLS: usize = 16;

/// How long a call that needs no credentials may take until its answer begins, its request included,
/// which is a few bytes.
pub const UNAUTHENTICATED_TIMEOUT: Duration = Duration::from_secs(5);

/// Calls in progress that need no credentials and go on for as long as their callers like: those that
/// watch health, and reflection. One address has at most its share of them ([`CALLER_SHARE`]).
pub const WATCHES: usize = 512;

/// How long a reflection stream may go without a byte from its caller. Tools ask one question after the
/// other, and open a new stream for the next one.
pub const REFLECTION_IDLE_TIMEOUT: Duration = Duration::from_secs(60);

/// Bytes of a request below which nothing is asked before it is read, so that nobody who sends little
/// waits for those who send much. [`CALLS`] bounds how many there are.
pub const SMALL_REQUEST_BYTES: usize = 32 << 10;

/// Bytes of larger requests that are read and not admitted yet, over all connections; beyond it they
/// wait, and their senders are pushed back. Enough for sixteen of the largest at a time.
pub const READING_BYTES: usize = 16 * MAX_MESSAGE_BYTES;

/// How long a larger message may take from its beginning to its end, so that nobody keeps the others
/// waiting: the largest one comes over 2.5 Mbit/s.
pub const READING_TIMEOUT: Duration = Duration::from_secs(30);

/// How long a larger message, or HTTP body, may go without a byte once it has begun. What is sent over a
/// working network pauses for far less, and bytes that are reserved for it wait for nothing.
pub const READING_STALL_TIMEOUT: Duration = Duration::from_secs(5);

/// How long a PublishStream may go without a request. Then it is ended, so that streams which were
/// forgotten do not use up their caller's share of [`CALLS`]. No request waits for its answer for so
/// long ([`CALL_TIMEOUT`]), and opening a new stream costs one round trip.
pub const STREAM_IDLE_TIMEOUT: Duration = Duration::from_secs(15 * 60);

/// Bytes of an answer that are handed to a connection at once, and up to which an answer needs no room of
/// its own: so much of each call may wait inside of the connection, and [`CALLS`] bounds how many there are.
pub const SMALL_ANSWER_BYTES: usize = 64 << 10;

/// Bytes of answers to listings and look-ups that are read from the store or that their callers have not
/// taken yet, over all connections; beyond it they are refused before anything is read. Enough for 40 of
/// the largest at a time.
pub const LISTING_BYTES: usize = 192 << 20;

/// Bytes of [`LISTING_BYTES`] that an answer takes until its size is known: a page in JSON, where names may
/// take twice as much.
pub const LISTING_RESERVED_BYTES: usize =
    MAX_PAGE_BYTES + 2 * MAX_PAGE_EVENTS * EVENT_ENVELOPE_BYTES;

/// How long a listing or look-up waits for that. Those that are being read end in a moment, unless the store
/// is slow; what is longer in the way are answers that are not taken.
pub const ANSWER_WAIT: Duration = Duration::from_secs(5);

/// Bytes of other larger answers that their callers have not taken yet, over all connections; beyond it calls
/// are refused. They have a bound of their own because publishes are among them, which are refused after
/// their events were stored: no listing may cause that.
pub const ANSWER_BYTES: usize = 64 << 20;

/// How long a caller may take for a larger answer, after which it is thrown away: the largest one goes
/// over 0.6 Mbit/s.
pub const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);

/// Subscriptions to the feed, by whatever way. One that waits for events takes some ten KiB. What is kept
/// of those that others do not take is bounded by [`SUBSCRIPTION_BYTES`], [`SUBSCRIPTION_FREE_BYTES`] and
/// [`SEND_BUFFER_BYTES`].
pub const SUBSCRIBERS: usize = 2_048;

/// Bytes of events that were read for subscriptions and that their connections have not taken, over all
/// subscriptions. Without permits a page is cut to [`SUBSCRIPTION_FREE_BYTES`], and an event that is larger
/// than that waits. Enough for 20 that take pages of the largest size at the same time; others read as
/// much as the store gives, page by page.
pub const SUBSCRIPTION_BYTES: usize = 128 << 20;

/// Bytes of a page, over all lanes, for which a subscription needs no permits, so that those who get small
/// events never wait for those who do not take large ones. A page that waits, a frame of another one and a
/// frame on its way out are 96 MiB for all [`SUBSCRIBERS`].
pub const SUBSCRIPTION_FREE_BYTES: usize = 16 << 10;

/// What an event costs beside its text while it waits for a subscriber: its struct, its cursor as numbers
/// and as text, the allocations of its names.
pub const FEED_EVENT_OVERHEAD: usize = 512;

/// Bytes of a frame that are handed to a connection at once: as many as a frame of HTTP/2 has. So much of
/// each subscription may stay inside of a connection whose other end takes nothing.
pub const SUBSCRIPTION_PORTION_BYTES: usize = 16 << 10;

/// How long a subscriber may take for a frame that waits for it, after which the subscription ends: the
/// largest frame goes over 0.6 Mbit/s. Nothing waits for one that has taken everything.
pub const SUBSCRIBER_STALL_TIMEOUT: Duration = Duration::from_secs(60);

/// Connections at the same time. What has come over them and is not read yet is for calls, of which there
/// are [`CALLS`], each with [`CALL_WINDOW_BYTES`].
pub const CONNECTIONS: usize = 10_000;

/// The part of them that may come from one address: one half. Behind a load balancer all come from one,
/// so it is large; it leaves room for others.
pub const ADDRESS_SHARE: usize = 2;

/// The part of each bound that one caller may use: an identity of the access file, or an address where
/// callers do not authenticate. One half, so that no single caller excludes the others; behind a proxy
/// all of them may have one address, and then half of everything is what they have.
pub const CALLER_SHARE: usize = 2;

/// Files left for what is no connection of a caller: the database, to which there are a dozen connections
/// with up to three files each, and what the program itself has open. Where the system allows few, one
/// half is enough.
pub const OTHER_FILES: usize = 128;

/// How long a connection has for its TLS handshake, then for the first bytes of its protocol, and over
/// HTTP/1 for the head of each request.
pub const OPENING_TIMEOUT: Duration = Duration::from_secs(10);

/// Bytes after which the protocol is known: those with which HTTP/2 begins. A request over HTTP/1 has
/// hardly fewer, and then the bound of its head is the same.
pub const OPENING_BYTES: usize = 24;

/// How long the other end of a connection may take nothing of what it is sent. Over HTTP/2
/// [`KEEPALIVE`] tells it as well.
pub const STALL_TIMEOUT: Duration = Duration::from_secs(30);

/// How often the files of certificates are looked at. They are replaced days before they expire.
pub const CERTIFICATE_INTERVAL: Duration = Duration::from_secs(5);

/// How often the client certificate of an open connection is verified again, beside each change of the
/// authorities: so long a connection outlives its certificate. Verifying takes some 0.1 ms, so with all of
/// [`CONNECTIONS`] it is a tenth of a core.
pub const CLIENT_CERTIFICATE_INTERVAL: Duration = Duration::from_secs(10);

/// First and longest pause when the system has no connection to give, as without file descriptors.
pub const ACCEPT_BACKOFF: (Duration, Duration) =
    (Duration::from_millis(100), Duration::from_secs(1));

/// How often the log says what may happen with every connection.
pub const WARNING_INTERVAL: Duration = Duration::from_secs(10);

/// Bytes of an access file. It is read every few seconds.
pub const MAX_ACCESS_FILE_BYTES: usize = 1 << 20;

/// Identities in an access file. A token is compared with those of all, in every call.
pub const MAX_IDENTITIES: usize = 1_000;

/// Tokens of one identity: the old one and the new one, while they are exchanged.
pub const MAX_IDENTITY_TOKENS: usize = 2;

/// Random bytes of a token that this program makes: 256 bits, which nobody guesses.
pub const TOKEN_BYTES: usize = 32;

/// Events that an identity with a rate may send at once, at least: a request of the largest size must
/// get through some time.
pub const MIN_RATE_BURST: u32 = MAX_REQUEST_EVENTS as u32;

/// Events per second, and events at once, that an access file may name. More than any database takes.
pub const MAX_RATE_EVENTS: u32 = 10_000_000;

/// How often the access file is looked at. Also how long a stream that is being slowed does not see that
/// it may go faster.
pub const ACCESS_POLL_INTERVAL: Duration = Duration::from_secs(2);

/// Calls in progress on one connection.
pub const CALLS_PER_CONNECTION: u32 = 1_024;

/// Streams that a connection may make the server reset before it is closed: the guard against floods of
/// resets (RUSTSEC-2024-0003).
pub const RESETS_PER_CONNECTION: usize = 1_024;

/// Bytes of the head of a request over HTTP/2. Ours have some hundred.
pub const MAX_HEADER_BYTES: u32 = 16 << 10;

/// Bytes that are read at once over HTTP/1, hence of the head of a request. A subscription may name many
/// topics in its address, of which 64 KiB are taken.
pub const HTTP1_BUFFER_BYTES: usize = 128 << 10;

/// Bytes of answers that wait in memory for one stream of HTTP/2 to take them, while its window is open
/// and the connection is not read: as much as one portion of an answer has.
pub const SEND_BUFFER_BYTES: usize = SMALL_ANSWER_BYTES;

/// Bytes that may have come for a call before they are read. More would make nothing faster.
pub const CALL_WINDOW_BYTES: u32 = 256 << 10;

/// The same for all calls of a connection. So large because h2 cuts a connection on which so many small
/// frames wait that what they cost beside their bytes exceeds a half of this: producers of small
/// requests that are made to wait are no attackers.
pub const CONNECTION_WINDOW_BYTES: u32 = 32 << 20;

/// How often an idle connection is probed, and how long the answer may take.
pub const KEEPALIVE: (Duration, Duration) = (Duration::from_secs(30), Duration::from_secs(10));

/// How long a connection is silent before the system probes it, and how often it does so then.
pub const TCP_KEEPALIVE: (Duration, Duration) = (Duration::from_secs(60), Duration::from_secs(15));
