//! Every bound of the service, with its reason. Nothing here is configurable: a client that works
//! with one deployment works with all of them. Those of connections, calls and callers are in `edge`.

use std::time::Duration;

pub use edge::*;

mod edge;

/// Bytes of a topic, event id or source. Keys of this size always fit a PostgreSQL index row
/// (2,704 bytes), also when they do not compress.
pub const MAX_NAME_BYTES: usize = 255;

/// Bytes of a payload's JSON text. One event with its envelope must fit the 4 MiB that gRPC clients
/// take by default, or it could be stored and never read.
pub const MAX_PAYLOAD_BYTES: usize = 1 << 20;

/// How deep objects and arrays of a payload may nest, the payload itself included. Protobuf
/// decoders stop at 100 nested messages and a `Struct` spends three on each level.
pub const MAX_PAYLOAD_DEPTH: usize = 24;

/// Bytes of one number in a payload. The longest plain decimal form of a 64-bit float that reads
/// back unchanged (`-5e-324` written out) needs fewer; anything longer only costs readers memory.
pub const MAX_NUMBER_BYTES: usize = 400;

/// The largest exponent that a number in a payload may be written with, on either side of zero. What
/// exceeds it is beyond a 64-bit float, except for zeros, which PostgreSQL would write out in full.
pub const MAX_NUMBER_EXPONENT: i64 = 400;

/// Whole numbers up to this one are exact in a 64-bit float, hence in a `Struct`.
pub const MAX_SAFE_INTEGER: u64 = 1 << 53;

/// Events in one publish request, and keys in one look-up.
pub const MAX_REQUEST_EVENTS: usize = 1_000;

/// Fields of one event in JSON. An event has five; a CloudEvent may have extensions, whose names are
/// given back because they are not kept.
pub const MAX_EVENT_FIELDS: usize = 100;

/// Bytes of one publish request on the wire.
pub const MAX_REQUEST_BYTES: usize = 4 << 20;

/// Bytes of one gRPC message. Above [`MAX_REQUEST_BYTES`], so that a request somewhat too large gets
/// an answer that names the bound instead of a transport error.
pub const MAX_MESSAGE_BYTES: usize = 8 << 20;

/// Fields at the top level of one gRPC message, each item of a repeated one counted. Some more than
/// [`MAX_REQUEST_EVENTS`], so that those too many can still be rejected one by one.
pub const MAX_MESSAGE_ITEMS: usize = 4_096;

/// Events on a page when the caller names no size.
pub const DEFAULT_PAGE_EVENTS: usize = 50;

/// Events on a page at most.
pub const MAX_PAGE_EVENTS: usize = 1_000;

/// Bytes of payload text after which a page is cut. The first event is always on the page.
pub const MAX_PAGE_BYTES: usize = 5 << 19;

/// Bytes of a message that gives events back: a little less than the 4 MiB that gRPC clients take by
/// default. Payloads that would exceed it as a `Struct` are given back as text.
pub const MAX_RESPONSE_BYTES: usize = (4 << 20) - (64 << 10);

/// Bytes of an event beside its payload, at most, when it is given back: three names, two times and
/// a cursor.
pub const EVENT_ENVELOPE_BYTES: usize = 1_152;

/// Lanes of a database. A cursor has a number and a time for each, and must fit [`EVENT_ENVELOPE_BYTES`] beside the
/// names.
pub const MAX_LANES: usize = 12;

/// Field violations named in one error. Errors travel in HTTP/2 trailers, of which gRPC clients take
/// 8 KiB; the longest violations have some 200 bytes, which become a third more on the way.
pub const MAX_VIOLATIONS: usize = 20;

/// Differences that a verification names. One shows what is wrong; thousands would have the same cause.
pub const MAX_DIFFERENCES: usize = 20;

/// Topics in an answer of GetStats when the caller names no number.
pub const DEFAULT_STATS_TOPICS: usize = 100;

/// Topics in an answer of GetStats at most.
pub const MAX_STATS_TOPICS: usize = 1_000;

/// Bytes of events waiting for their commit, over all lanes. This is what bounds the memory of the
/// write path; beyond it streams are not read and unary calls are refused.
pub const QUEUE_BYTES: usize = 64 << 20;

/// What an event in the queue costs beside its text: its struct, its allocations, its reply. So the
/// queue is bounded in events as well: it never holds more than 262,144.
pub const QUEUED_EVENT_OVERHEAD: usize = 256;

/// Bytes of [`QUEUE_BYTES`] that one PublishStream may take: some requests of the largest size, and
/// half a second of what a database commits. With it no single producer fills the queue.
pub const STREAM_QUEUE_BYTES: usize = QUEUE_BYTES / 8;

/// Bytes of a message below which it is copied out of the buffer that it arrived in, which is so
/// large at least: events keep their message in memory while they wait for their commit.
pub const SHARED_MESSAGE_BYTES: usize = 8 << 10;

/// Requests waiting in one lane. As many as fit [`QUEUE_BYTES`], which is shared among callers: this one is
/// not, so it is never reached before.
pub const LANE_QUEUE_REQUESTS: usize = QUEUE_BYTES / QUEUED_EVENT_OVERHEAD;

/// Events after which a batch is closed. Beyond it a commit gets longer, not cheaper per event.
pub const MAX_BATCH_EVENTS: usize = 4_096;

/// Bytes after which a batch is closed, for the same reason.
pub const MAX_BATCH_BYTES: usize = 1 << 20;

/// Bytes of stored payloads that one batch is compared with, beyond what was sent with the same keys: the
/// least with which every event can be committed. The submissions of a caller that needs more are
/// committed in parts, between which other requests have their turn: comparing so much takes some
/// 15 ms at worst. Producers that send again what they sent need none.
pub const MAX_COMPARED_BYTES: usize = MAX_PAYLOAD_BYTES;

/// Bytes of stored payloads, beyond what was sent, whose comparison is charged to a rate as one more event.
/// Comparing so much takes 0.2 ms at worst.
pub const COMPARED_BYTES_PER_EVENT: usize = 16 << 10;

/// Bytes of payloads that are compared on a worker thread of the runtime, which takes a millisecond at most.
/// More is compared on a thread for blocking work.
pub const INLINE_COMPARED_BYTES: usize = 64 << 10;

/// Requests of one PublishStream that may wait for their commit before the stream is not read any
/// further.
pub const STREAM_REQUESTS_IN_FLIGHT: usize = 64;

/// Bytes of a `request_id`, which waits with its request. An UUID has 36.
pub const MAX_REQUEST_ID_BYTES: usize = 255;

/// How long a batch is tried again while the store is away; the last try may begin just before. It is
/// as long as producers wait for their answer, and then they are told to send again. Restarting a
/// database takes less.
pub const COMMIT_RETRY: Duration = Duration::from_secs(60);

/// First and longest pause between two tries of a batch.
pub const COMMIT_BACKOFF: (Duration, Duration) =
    (Duration::from_millis(50), Duration::from_secs(2));

/// Tries of a batch that fails for a reason that does not look like an outage, before the event at fault is
/// looked for: enough for what passes in a moment, as when a table is changed.
pub const FAULT_TRIES: u32 = 3;

/// Events of one batch that are found to be at fault. If there are more, the fault is not in the events.
pub const MAX_FAULTY_EVENTS: usize = 16;

/// How long one try of a batch may take before its connection is given up. Longer than the
/// database's own [`STATEMENT_TIMEOUT`], which gives the clearer answer.
pub const COMMIT_TIMEOUT: Duration = Duration::from_secs(20);

/// How long the database works on one statement.
pub const STATEMENT_TIMEOUT: Duration = Duration::from_secs(15);

/// How long it may take to end a look for originals before its last row, which is a new connection and a
/// few rows away. After that the session is given up and replaced, which always works.
pub const CANCEL_TIMEOUT: Duration = Duration::from_secs(1);

/// How long a statement waits for a lock in the database. Lanes hold theirs for one commit.
pub const LOCK_TIMEOUT: Duration = Duration::from_secs(5);

/// How long a session may idle inside a transaction, which it does only if its client died.
pub const IDLE_TRANSACTION_TIMEOUT: Duration = Duration::from_secs(10);

/// How often the database looks, while it works, whether its client is still there: statements that
/// nobody waits for end.
pub const CLIENT_CHECK_INTERVAL: Duration = Duration::from_secs(1);

/// How long an entry of the batch ledger is kept. Must exceed [`COMMIT_RETRY`] plus the life of a
/// statement whose client is gone.
pub const LEDGER_RETENTION: Duration = Duration::from_secs(60 * 60);

/// Entries of each lane that the ledger keeps however old they look, because the database's clock may
/// jump. More than a lane commits while a batch is in doubt: that is over after [`COMMIT_RETRY`] and
/// [`COMMIT_TIMEOUT`], and in these 80 s a lane, which commits one batch after the other over all
/// instances, waits for some 800 flushes a second at most.
pub const LEDGER_ENTRIES: i64 = 65_536;

/// How often the ledger is pruned.
pub const LEDGER_PRUNE_INTERVAL: Duration = Duration::from_secs(10 * 60);

/// Connections that serve reads, per process. A few slow listings must not block `GetStats`.
pub const READ_CONNECTIONS: usize = 8;

/// Listings that filter by source, in the store at the same time, over all callers; one caller has its
/// share ([`CALLER_SHARE`]). No index helps them, so each may read all events and use a core. Together
/// with [`FEED_READS`] they leave connections to all other reads.
pub const SCANS: usize = 2;

/// How long such a listing waits for its turn: as long as the one before it may take.
pub const SCAN_WAIT: Duration = STATEMENT_TIMEOUT;

/// How long a read waits for one of them.
pub const READ_CONNECTION_WAIT: Duration = Duration::from_secs(5);

/// How long a read may take. Longer than the database's own [`STATEMENT_TIMEOUT`], which gives the clearer
/// answer; a server that is frozen gives none.
pub const READ_TIMEOUT: Duration = Duration::from_secs(20);

/// How long the database may take to show that it is there.
pub const PING_TIMEOUT: Duration = Duration::from_secs(5);

/// Pages of 4 KiB in SQLite's log before they are moved into the file. Random keys touch every part of
/// the index again and again, and a page that changed often is moved once; 64 MiB are still moved in
/// a moment.
pub const SQLITE_LOG_PAGES: i32 = 16_384;

/// KiB of pages that SQLite's writer keeps in memory. The upper levels of the indexes fit.
pub const SQLITE_CACHE_KIB: i32 = 64 << 10;

/// Events that a subscriber reads from a lane at once: at first, and at most. The first reads are small
/// because they may be large. The most is also what it is sent at once.
pub const FEED_READ_EVENTS: (usize, usize) = (64, 1_000);

/// Bytes of payload that it reads from a lane at once. With four lanes so much of [`MAX_PAGE_BYTES`]
/// waits for each reader, if [`SUBSCRIPTION_BYTES`] allows it.
pub const FEED_READ_BYTES: usize = MAX_PAGE_BYTES / 4;

/// Events of one lane that are looked at for one read. A subscriber to a rare topic makes progress in
/// steps of this size, each far shorter than [`STATEMENT_TIMEOUT`].
pub const FEED_SCAN_EVENTS: i64 = 10_000;

/// Subscribers that read from the store at the same time; the others wait for their turn. Half of
/// [`READ_CONNECTIONS`], so that other reads go on.
pub const FEED_READS: usize = READ_CONNECTIONS / 2;

/// How often the heads of the lanes are asked for while somebody subscribes: this is how long the
/// commits of another instance stay unseen.
pub const FEED_POLL_INTERVAL: Duration = Duration::from_millis(20);

/// How long they are not asked for again although something was committed.
pub const FEED_POLL_PAUSE: Duration = Duration::from_millis(2);

/// How long a subscriber goes without a new cursor while it is only passing what it did not ask for.
pub const CHECKPOINT_INTERVAL: Duration = Duration::from_secs(1);

/// Topics that one subscription names.
pub const MAX_SUBSCRIBED_TOPICS: usize = 1_000;

/// How long one connection attempt to the database may take.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);

/// How long it may take until there is a session: [`CONNECT_TIMEOUT`] for each of several servers, TLS,
/// the password. A server that is frozen takes connections and never answers.
pub const SESSION_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a starting service waits for a database that does not answer yet.
pub const DATABASE_WAIT: Duration = Duration::from_secs(10);

/// How long a starting service waits for another instance to migrate the database.
pub const MIGRATION_WAIT: Duration = Duration::from_secs(120);

/// How far the clocks of instances may differ before a starting one warns. Also how far ahead of the
/// database's clock a time of receipt may be: times never run backwards, so that one wrong time would be
/// that of all later events of its lane.
pub const FUTURE_TOLERANCE: Duration = Duration::from_secs(10);

/// How long the clock of a process must have been ahead of what it told before and the time that has
/// passed since, until a SQLite store believes it. A correction by NTP stays, a fault is corrected.
pub const CLOCK_JUMP: Duration = Duration::from_secs(60);

/// How often the health service asks the store.
pub const HEALTH_INTERVAL: Duration = Duration::from_secs(2);

/// How long a stopping service waits for calls in progress.
pub const DRAIN_TIMEOUT: Duration = Duration::from_secs(15);

/// How long it then waits for the store to take what is left. Together with [`DRAIN_TIMEOUT`] less
/// than the 30 s after which Kubernetes kills.
pub const FLUSH_TIMEOUT: Duration = Duration::from_secs(10);

/// What a caller is told to wait before it tries again, and how long the feed waits when the store does
/// not answer.
pub const RETRY_DELAY: Duration = Duration::from_millis(500);

/// Bytes of memory that the service takes at most, whatever its callers do: the sum of all bounds, as
/// docs/operations.md explains it. Beside them, a call takes some 16 KiB, a call without credentials 2 KiB,
/// the state of TLS 32 KiB of each connection, and the program with its caches 256 MiB.
pub const MEMORY_BYTES: usize = QUEUE_BYTES
    + READING_BYTES
    + LISTING_BYTES
    + ANSWER_BYTES
    + SUBSCRIPTION_BYTES
    + SUBSCRIBERS * (SUBSCRIPTION_FREE_BYTES + SUBSCRIPTION_PORTION_BYTES)
    + CALLS * (CALL_WINDOW_BYTES as usize + SEND_BUFFER_BYTES + (16 << 10))
    + CONNECTIONS * (HTTP1_BUFFER_BYTES + (32 << 10) + UNAUTHENTICATED_CALLS * (2 << 10))
    + (256 << 20);

/// Upper bounds of the histogram of calls, in seconds: from a lone publish to what waits for a store.
pub const CALL_BUCKETS: [f64; 14] =
    [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 60.0];

/// Upper bounds of the histogram of commits, in seconds: up to [`COMMIT_TIMEOUT`].
pub const COMMIT_BUCKETS: [f64; 14] =
    [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 20.0];

const _: () = {
    assert!(MAX_PAYLOAD_BYTES < MAX_PAGE_BYTES);
    // One event can always be committed.
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
