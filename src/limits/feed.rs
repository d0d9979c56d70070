//! Limits of the feed: reads, polls and what subscriptions hold.

use std::time::Duration;

use super::{MAX_PAGE_BYTES, MAX_READ_CONNECTIONS};

/// Number of events that a subscription reads from a lane at once, at first: they may be large.
pub const MIN_FEED_READ_EVENTS: usize = 64;

/// Maximum number of events that a subscription reads from a lane at once, and of a frame.
pub const MAX_FEED_READ_EVENTS: usize = 1_000;

/// Bytes of payload that a subscription reads from a lane at once. With four lanes,
/// [`MAX_PAGE_BYTES`] of events wait for each subscriber, if [`MAX_SUBSCRIPTION_BYTES`] allows it.
pub const FEED_READ_BYTES: usize = MAX_PAGE_BYTES / 4;

/// Number of events of a lane that are scanned per read. A subscription to a rare topic advances in
/// steps of this size, each far shorter than [`super::STATEMENT_TIMEOUT`].
pub const FEED_SCAN_EVENTS: i64 = 10_000;

/// Maximum number of concurrent reads for subscriptions; the others wait. Half of
/// [`MAX_READ_CONNECTIONS`], so that other reads are not blocked.
pub const MAX_FEED_READS: usize = MAX_READ_CONNECTIONS / 2;

/// How often the heads of the lanes are polled while there are subscribers: the delay after which
/// commits of other instances are seen.
pub const FEED_POLL_INTERVAL: Duration = Duration::from_millis(20);

/// Minimum time between two polls of the heads after commits of this process.
pub const FEED_POLL_PAUSE: Duration = Duration::from_millis(2);

/// Maximum time between two cursors for a subscriber while only events of other topics are read.
pub const CHECKPOINT_INTERVAL: Duration = Duration::from_secs(1);

/// Maximum number of subscriptions over all protocols. An idle one takes some ten KiB. Events that
/// are not received are limited by [`MAX_SUBSCRIPTION_BYTES`], [`SUBSCRIPTION_FREE_BYTES`] and
/// [`super::SEND_BUFFER_BYTES`].
pub const MAX_SUBSCRIBERS: usize = 2_048;

/// Maximum bytes of events that were read for subscriptions and not sent yet. Without permits,
/// pages are cut to [`SUBSCRIPTION_FREE_BYTES`], and larger events wait. Enough for 20
/// subscriptions with pages of the largest size; others read page by page, as fast as the store
/// allows.
pub const MAX_SUBSCRIPTION_BYTES: usize = 128 << 20;

/// Bytes of a page, over all lanes, that need no permits, so that subscribers to small events never
/// wait for those to large ones. A waiting page and two frames on their way take 96 MiB for all
/// [`MAX_SUBSCRIBERS`].
pub const SUBSCRIPTION_FREE_BYTES: usize = 16 << 10;

/// Bytes that an event occupies besides its text while it waits for a subscriber: its struct, its
/// cursor as numbers and as text, and the allocations of its names.
pub const FEED_EVENT_OVERHEAD: usize = 512;

/// Bytes of a subscription frame that are passed to a connection at once: one HTTP/2 frame. This
/// much of each subscription may be buffered in a stalled connection.
pub const SUBSCRIPTION_CHUNK_BYTES: usize = 16 << 10;

/// Timeout for sending a frame, after which a subscription ends: the largest frame takes this long
/// at 0.6 Mbit/s. Idle subscriptions are not affected.
pub const SUBSCRIBER_STALL_TIMEOUT: Duration = Duration::from_secs(60);
