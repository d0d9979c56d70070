//! Limits of the write path: queues, batches, comparisons and retries.

use std::time::Duration;

use super::MAX_PAYLOAD_BYTES;

/// Maximum number of lanes. A cursor has a number and a time for each, and must fit in
/// [`super::EVENT_ENVELOPE_BYTES`] next to the names.
pub const MAX_LANES: usize = 12;

/// Maximum bytes of queued events over all lanes, which bounds the memory of the write path. When
/// the queue is full, streams are not read and unary calls are rejected.
pub const MAX_QUEUE_BYTES: usize = 64 << 20;

/// Bytes that a queued event occupies besides its text: its struct, allocations and reply. This
/// limits the queue to 262,144 events.
pub const QUEUED_EVENT_OVERHEAD: usize = 256;

/// Maximum bytes of [`MAX_QUEUE_BYTES`] per PublishStream, so that no producer fills the queue. Enough
/// for several of the largest requests, and for half a second of a database's commits.
pub const MAX_STREAM_QUEUE_BYTES: usize = MAX_QUEUE_BYTES / 8;

/// Messages below this size in bytes are copied out of the receive buffer, which has at least this
/// size: queued events keep their message in memory.
pub const SHARED_MESSAGE_BYTES: usize = 8 << 10;

/// Maximum number of requests in the queue of one lane. [`MAX_QUEUE_BYTES`] is shared fairly and this
/// is not, so this is large enough never to be reached first.
pub const MAX_LANE_REQUESTS: usize = MAX_QUEUE_BYTES / QUEUED_EVENT_OVERHEAD;

/// Maximum number of unanswered requests of a PublishStream, after which it is not read any
/// further.
pub const MAX_STREAM_REQUESTS_IN_FLIGHT: usize = 64;

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

/// How long a batch is retried while the store is unavailable; the last attempt may begin just
/// before the end. Producers wait this long, and are then told to retry. A database restart takes
/// less.
pub const COMMIT_RETRY: Duration = Duration::from_secs(60);

/// Delay before the first retry of a batch. It doubles with each retry.
pub const MIN_COMMIT_BACKOFF: Duration = Duration::from_millis(50);

/// Maximum delay before a retry of a batch.
pub const MAX_COMMIT_BACKOFF: Duration = Duration::from_secs(2);

/// Number of attempts for an error that is not an outage, before the event at fault is isolated.
/// Enough for transient errors, such as during a schema change.
pub const FAULT_TRIES: u32 = 3;

/// Maximum number of events at fault in a batch. If there are more, the events are not the cause.
pub const MAX_FAULTY_EVENTS: usize = 16;
