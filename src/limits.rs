//! All limits of the service, with their reasons. They are not configurable, so that a client that
//! works with one deployment works with all of them. Those of connections, calls and callers are in
//! `edge`.

use std::time::Duration;

pub use edge::*;

mod edge;

/// Maximum bytes of a topic, event id or source. Keys of this size fit a PostgreSQL index row
/// (2,704 bytes) even if they do not compress.
pub const MAX_NAME_BYTES: usize = 255;

/// Maximum bytes of a payload's JSON text. One event with its envelope must fit in 4 MiB, which
/// gRPC clients accept by default, or it could be stored but not read.
pub const MAX_PAYLOAD_BYTES: usize = 1 << 20;

/// Maximum nesting of objects and arrays in a payload, including the payload itself. Protobuf
/// decoders stop at 100 nested messages, and a `Struct` needs three per level.
pub const MAX_PAYLOAD_DEPTH: usize = 24;

/// Maximum bytes of a number in a payload. The longest plain decimal form of a 64-bit float that
/// reads back unchanged (`-5e-324` written out) needs fewer.
pub const MAX_NUMBER_BYTES: usize = 400;

/// Maximum absolute exponent of a number in a payload. Larger ones exceed a 64-bit float, except
/// for zeros, which PostgreSQL would write out in full.
pub const MAX_NUMBER_EXPONENT: i64 = 400;

/// Largest integer up to which all integers are exact in a 64-bit float, hence in a `Struct`.
pub const MAX_SAFE_INTEGER: u64 = 1 << 53;

/// Maximum number of events in a publish request, and of keys in a look-up.
pub const MAX_REQUEST_EVENTS: usize = 1_000;

/// Maximum number of fields of a JSON event. An event has five; a CloudEvent may have extensions,
/// whose names are returned because they are not stored.
pub const MAX_EVENT_FIELDS: usize = 100;

/// Maximum bytes of a publish request on the wire.
pub const MAX_REQUEST_BYTES: usize = 4 << 20;

/// Maximum bytes of a gRPC message. Above [`MAX_REQUEST_BYTES`], so that a slightly oversized
/// request gets an error that names the limit instead of a transport error.
pub const MAX_MESSAGE_BYTES: usize = 8 << 20;

/// Maximum number of top-level fields of a gRPC message, including each item of a repeated field.
/// Above [`MAX_REQUEST_EVENTS`], so that excess events can still be rejected one by one.
pub const MAX_MESSAGE_ITEMS: usize = 4_096;

/// Default number of events on a page.
pub const DEFAULT_PAGE_EVENTS: usize = 50;

/// Maximum number of events on a page.
pub const MAX_PAGE_EVENTS: usize = 1_000;

/// Bytes of payload text after which a page is cut. It always has the first event.
pub const MAX_PAGE_BYTES: usize = 5 << 19;

/// Maximum bytes of a response with events: slightly less than the 4 MiB that gRPC clients accept
/// by default. Payloads that would exceed it as a `Struct` are returned as JSON text.
pub const MAX_RESPONSE_BYTES: usize = (4 << 20) - (64 << 10);

/// Maximum bytes of a returned event without its payload: three names, two times and a cursor.
pub const EVENT_ENVELOPE_BYTES: usize = 1_152;

/// Maximum number of lanes. A cursor has a number and a time for each, and must fit in
/// [`EVENT_ENVELOPE_BYTES`] next to the names.
pub const MAX_LANES: usize = 12;

/// Maximum number of field violations in an error. Errors are sent in HTTP/2 trailers, of which
/// gRPC clients accept 8 KiB; a violation has up to 200 bytes, and a third more when encoded.
pub const MAX_VIOLATIONS: usize = 20;

/// Maximum number of differences in a verification. They usually have one cause.
pub const MAX_DIFFERENCES: usize = 20;

/// Default number of topics in a GetStats response.
pub const DEFAULT_STATS_TOPICS: usize = 100;

/// Maximum number of topics in a GetStats response.
pub const MAX_STATS_TOPICS: usize = 1_000;

/// Maximum bytes of queued events over all lanes, which bounds the memory of the write path. When
/// the queue is full, streams are not read and unary calls are rejected.
pub const QUEUE_BYTES: usize = 64 << 20;

/// Bytes that a queued event occupies besides its text: its struct, allocations and reply. This
/// limits the queue to 262,144 events.
pub const QUEUED_EVENT_OVERHEAD: usize = 256;

/// Maximum bytes of [`QUEUE_BYTES`] per PublishStream, so that no producer fills the queue. Enough
/// for several of the largest requests, and for half a second of a database's commits.
pub const STREAM_QUEUE_BYTES: usize = QUEUE_BYTES / 8;

/// Messages below this size in bytes are copied out of the receive buffer, which has at least this
/// size: queued events keep their message in memory.
pub const SHARED_MESSAGE_BYTES: usize = 8 << 10;

/// Maximum number of requests in the queue of one lane. [`QUEUE_BYTES`] is shared fairly and this
/// is not, so this is large enough never to be reached first.
pub const LANE_QUEUE_REQUESTS: usize = QUEUE_BYTES / QUEUED_EVENT_OVERHEAD;

/// Maximum number of events per batch. Larger commits take longer without being cheaper per event.
pub const MAX_BATCH_EVENTS: usize = 4_096;

/// Maximum bytes per batch, for the same reason.
pub const MAX_BATCH_BYTES: usize = 1 << 20;

/// Maximum bytes of stored payloads that a batch is compared with, beyond those sent with the same
/// keys: the minimum with which every event can be committed. Submissions that need more are
/// committed in parts, between other requests, because such a comparison takes up to 15 ms. Exact
/// duplicates need none.
pub const MAX_COMPARED_BYTES: usize = MAX_PAYLOAD_BYTES;

/// Bytes of stored payloads to compare, beyond those sent, that the rate limit charges as one
/// event. They take up to 0.2 ms.
pub const COMPARED_BYTES_PER_EVENT: usize = 16 << 10;

/// Maximum bytes of payloads that are compared on a runtime worker, which takes up to 1 ms. More is
/// compared on a thread for blocking work.
pub const INLINE_COMPARED_BYTES: usize = 64 << 10;

/// Maximum number of unanswered requests of a PublishStream, after which it is not read any
/// further.
pub const STREAM_REQUESTS_IN_FLIGHT: usize = 64;

/// Maximum bytes of a `request_id`, which is kept with its request. A UUID has 36.
pub const MAX_REQUEST_ID_BYTES: usize = 255;

/// How long a batch is retried while the store is unavailable; the last attempt may begin just
/// before the end. Producers wait this long, and are then told to retry. A database restart takes
/// less.
pub const COMMIT_RETRY: Duration = Duration::from_secs(60);

/// Minimum and maximum delay before a retry of a batch.
pub const COMMIT_BACKOFF: (Duration, Duration) =
    (Duration::from_millis(50), Duration::from_secs(2));

/// Number of attempts for an error that is not an outage, before the event at fault is isolated.
/// Enough for transient errors, such as during a schema change.
pub const FAULT_TRIES: u32 = 3;

/// Maximum number of events at fault in a batch. If there are more, the events are not the cause.
pub const MAX_FAULTY_EVENTS: usize = 16;

/// Timeout of one attempt to commit a batch, after which its connection is closed. Longer than
/// [`STATEMENT_TIMEOUT`], whose error is more specific.
pub const COMMIT_TIMEOUT: Duration = Duration::from_secs(20);

/// Timeout of a statement in the database.
pub const STATEMENT_TIMEOUT: Duration = Duration::from_secs(15);

/// Timeout for cancelling a query for originals, which takes a new connection and a few rows. After
/// that the session is closed and replaced.
pub const CANCEL_TIMEOUT: Duration = Duration::from_secs(1);

/// Timeout for a lock in the database. Lanes hold theirs for one commit.
pub const LOCK_TIMEOUT: Duration = Duration::from_secs(5);

/// Timeout of a session that is idle in a transaction, which only happens if its client is gone.
pub const IDLE_TRANSACTION_TIMEOUT: Duration = Duration::from_secs(10);

/// How often the database checks, while it runs a statement, whether its client is still connected.
pub const CLIENT_CHECK_INTERVAL: Duration = Duration::from_secs(1);

/// How long entries of the batch ledger are kept. Must exceed [`COMMIT_RETRY`] plus the lifetime of
/// a statement whose client is gone.
pub const LEDGER_RETENTION: Duration = Duration::from_secs(60 * 60);

/// Number of ledger entries per lane that are kept regardless of their age, because the database's
/// clock may jump. Above what a lane commits while the outcome of a batch is unknown: up to
/// [`COMMIT_RETRY`] plus [`COMMIT_TIMEOUT`], at some 800 flushes per second.
pub const LEDGER_ENTRIES: i64 = 65_536;

/// How often the ledger is pruned.
pub const LEDGER_PRUNE_INTERVAL: Duration = Duration::from_secs(10 * 60);

/// Number of read connections per process, so that a few slow listings do not block `GetStats`.
pub const READ_CONNECTIONS: usize = 8;

/// Maximum number of concurrent listings with a source filter, over all callers; one caller has its
/// share ([`CALLER_SHARE`]). No index supports them, so each may read all events and use a core.
/// Together with [`FEED_READS`] they leave connections for all other reads.
pub const SCANS: usize = 2;

/// How long such a listing waits for its turn: as long as the previous one may take.
pub const SCAN_WAIT: Duration = STATEMENT_TIMEOUT;

/// How long a read waits for a read connection.
pub const READ_CONNECTION_WAIT: Duration = Duration::from_secs(5);

/// Timeout of a read. Longer than [`STATEMENT_TIMEOUT`], whose error is more specific; a frozen
/// server returns none.
pub const READ_TIMEOUT: Duration = Duration::from_secs(20);

/// Timeout of a health check of the database.
pub const PING_TIMEOUT: Duration = Duration::from_secs(5);

/// Number of 4 KiB pages in SQLite's WAL that triggers a checkpoint. Random keys change the same
/// index pages often, and a checkpoint writes each of them once; 64 MiB still take only a moment.
pub const SQLITE_LOG_PAGES: i32 = 16_384;

/// Number of events that a subscription reads from a lane at once, at first and at most. The first
/// reads are small because the events may be large. The maximum also limits a frame.
pub const FEED_READ_EVENTS: (usize, usize) = (64, 1_000);

/// Bytes of payload that a subscription reads from a lane at once. With four lanes,
/// [`MAX_PAGE_BYTES`] of events wait for each subscriber, if [`SUBSCRIPTION_BYTES`] allows it.
pub const FEED_READ_BYTES: usize = MAX_PAGE_BYTES / 4;

/// Number of events of a lane that are scanned per read. A subscription to a rare topic advances in
/// steps of this size, each far shorter than [`STATEMENT_TIMEOUT`].
pub const FEED_SCAN_EVENTS: i64 = 10_000;

/// Maximum number of concurrent reads for subscriptions; the others wait. Half of
/// [`READ_CONNECTIONS`], so that other reads are not blocked.
pub const FEED_READS: usize = READ_CONNECTIONS / 2;

/// How often the heads of the lanes are polled while there are subscribers: the delay after which
/// commits of other instances are seen.
pub const FEED_POLL_INTERVAL: Duration = Duration::from_millis(20);

/// Minimum time between two polls of the heads after commits of this process.
pub const FEED_POLL_PAUSE: Duration = Duration::from_millis(2);

/// Maximum time between two cursors for a subscriber while only events of other topics are read.
pub const CHECKPOINT_INTERVAL: Duration = Duration::from_secs(1);

/// Maximum number of topics of a subscription.
pub const MAX_SUBSCRIBED_TOPICS: usize = 1_000;

/// Timeout of a connection attempt to the database.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);

/// Timeout for opening a session: [`CONNECT_TIMEOUT`] for each of several servers, TLS, and
/// authentication. A frozen server accepts connections and never responds.
pub const SESSION_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a starting service waits for the database to respond.
pub const DATABASE_WAIT: Duration = Duration::from_secs(10);

/// How long a starting service waits for the migration of another instance.
pub const MIGRATION_WAIT: Duration = Duration::from_secs(120);

/// Clock difference between instances above which a starting one warns. Also the maximum time of
/// receipt ahead of the database's clock: time is monotonic within a lane, so one wrong time would
/// become that of all later events.
pub const FUTURE_TOLERANCE: Duration = Duration::from_secs(10);

/// How long a process's clock must be ahead of the monotonic time before a SQLite store accepts the
/// jump. A correction by NTP lasts, a fault is corrected.
pub const CLOCK_JUMP: Duration = Duration::from_secs(60);

/// How often the health of the store is checked.
pub const HEALTH_INTERVAL: Duration = Duration::from_secs(2);

/// How long a shutdown waits for calls in progress.
pub const DRAIN_TIMEOUT: Duration = Duration::from_secs(15);

/// How long a shutdown then waits for queued events. Together with [`DRAIN_TIMEOUT`] less than the
/// 30 s after which Kubernetes kills a container.
pub const FLUSH_TIMEOUT: Duration = Duration::from_secs(10);

/// Delay that callers are told to wait before a retry, and the delay of the feed after a failed
/// poll.
pub const RETRY_DELAY: Duration = Duration::from_millis(500);

/// Maximum memory in bytes, whatever callers do: the sum of all limits, as explained in
/// docs/operations.md. It includes 16 KiB per call, 2 KiB per unauthenticated call, 32 KiB of TLS
/// state per connection, and 256 MiB for the program with its caches.
pub const MEMORY_BYTES: usize = QUEUE_BYTES
    + READING_BYTES
    + LISTING_BYTES
    + ANSWER_BYTES
    + SUBSCRIPTION_BYTES
    + SUBSCRIBERS * (SUBSCRIPTION_FREE_BYTES + SUBSCRIPTION_PORTION_BYTES)
    + CALLS * (CALL_WINDOW_BYTES as usize + SEND_BUFFER_BYTES + (16 << 10))
    + CONNECTIONS * (HTTP1_BUFFER_BYTES + (32 << 10) + UNAUTHENTICATED_CALLS * (2 << 10))
    + (256 << 20);

const _: () = {
    assert!(MAX_PAYLOAD_BYTES < MAX_PAGE_BYTES);
    // Any single event can be committed.
    assert!(MAX_PAYLOAD_BYTES <= MAX_COMPARED_BYTES);
    assert!(MAX_PAGE_BYTES + MAX_PAGE_EVENTS * EVENT_ENVELOPE_BYTES < MAX_RESPONSE_BYTES);
    assert!(MAX_REQUEST_BYTES < MAX_MESSAGE_BYTES);
    assert!(QUEUE_BYTES < u32::MAX as usize);
    assert!(MAX_REQUEST_BYTES + MAX_REQUEST_EVENTS * QUEUED_EVENT_OVERHEAD <= STREAM_QUEUE_BYTES);
    assert!(STATEMENT_TIMEOUT.as_secs() < COMMIT_TIMEOUT.as_secs());
    assert!(COMMIT_RETRY.as_secs() + COMMIT_TIMEOUT.as_secs() < CALL_TIMEOUT.as_secs());
    assert!(SUBSCRIBERS < CALLS);
    assert!(SCANS + FEED_READS < READ_CONNECTIONS);
    assert!(CALL_TIMEOUT.as_secs() < STREAM_IDLE_TIMEOUT.as_secs());
    assert!(SCAN_WAIT.as_secs() + READ_TIMEOUT.as_secs() < CALL_TIMEOUT.as_secs());
    assert!(READING_BYTES < u32::MAX as usize);
    assert!(MAX_MESSAGE_BYTES <= READING_BYTES / CALLER_SHARE);
    assert!(MAX_RESPONSE_BYTES <= LISTING_RESERVED_BYTES);
    assert!(LISTING_RESERVED_BYTES <= LISTING_BYTES / CALLER_SHARE);
    assert!(LISTING_BYTES < u32::MAX as usize);
    assert!(ANSWER_BYTES < u32::MAX as usize);
    assert!(
        MAX_LANES * (MAX_PAYLOAD_BYTES + 3 * MAX_NAME_BYTES + FEED_EVENT_OVERHEAD)
            <= SUBSCRIPTION_BYTES / CALLER_SHARE
    );
    assert!(SUBSCRIPTION_BYTES < u32::MAX as usize);
    assert!(STATEMENT_TIMEOUT.as_secs() < READ_TIMEOUT.as_secs());
    assert!(COMMIT_RETRY.as_secs() + COMMIT_TIMEOUT.as_secs() < LEDGER_RETENTION.as_secs());
};
