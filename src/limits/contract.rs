//! Limits of the contract: requests, responses and their fields.

use std::time::Duration;

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

/// Maximum bytes of a `request_id`, which is kept with its request. A UUID has 36.
pub const MAX_REQUEST_ID_BYTES: usize = 255;

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

/// Maximum number of field violations in an error. Errors are sent in HTTP/2 trailers, of which
/// gRPC clients accept 8 KiB; a violation has up to 200 bytes, and a third more when encoded.
pub const MAX_VIOLATIONS: usize = 20;

/// Maximum number of differences in a verification. They usually have one cause.
pub const MAX_DIFFERENCES: usize = 20;

/// Default number of topics in a GetStats response.
pub const DEFAULT_STATS_TOPICS: usize = 100;

/// Maximum number of topics in a GetStats response.
pub const MAX_STATS_TOPICS: usize = 1_000;

/// Maximum number of topics of a subscription.
pub const MAX_SUBSCRIBED_TOPICS: usize = 1_000;

/// Delay that callers are told to wait before a retry, and the delay of the feed after a failed
/// poll.
pub const RETRY_DELAY: Duration = Duration::from_millis(500);
