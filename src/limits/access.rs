//! Limits of the access file: its size, identities and rates.

use std::time::Duration;

use super::MAX_REQUEST_EVENTS;

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
