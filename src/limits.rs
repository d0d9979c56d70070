//! All limits of the service, with their reasons. They are not configurable, so that a client that
//! works with one deployment works with all of them. Tuning that bounds nothing is where it is used.

pub use self::{access::*, contract::*, feed::*, ingest::*, server::*, store::*};

mod access;
mod contract;
mod feed;
mod ingest;
mod server;
mod store;

const _: () = {
    assert!(MAX_PAYLOAD_BYTES < MAX_PAGE_BYTES);
    // Any single event can be committed.
    assert!(MAX_PAYLOAD_BYTES <= MAX_COMPARED_BYTES);
    assert!(MAX_PAGE_BYTES + MAX_PAGE_EVENTS * EVENT_ENVELOPE_BYTES < MAX_RESPONSE_BYTES);
    assert!(MAX_REQUEST_BYTES < MAX_MESSAGE_BYTES);
    assert!(MAX_QUEUE_BYTES < u32::MAX as usize);
    assert!(
        MAX_REQUEST_BYTES + MAX_REQUEST_EVENTS * QUEUED_EVENT_OVERHEAD <= MAX_STREAM_QUEUE_BYTES
    );
    assert!(STATEMENT_TIMEOUT.as_secs() < COMMIT_TIMEOUT.as_secs());
    assert!(COMMIT_RETRY.as_secs() + COMMIT_TIMEOUT.as_secs() < CALL_TIMEOUT.as_secs());
    assert!(MAX_SUBSCRIBERS < MAX_CALLS);
    assert!(MAX_SCANS + MAX_FEED_READS < MAX_READ_CONNECTIONS);
    assert!(CALL_TIMEOUT.as_secs() < STREAM_IDLE_TIMEOUT.as_secs());
    assert!(SCAN_WAIT.as_secs() + READ_TIMEOUT.as_secs() < CALL_TIMEOUT.as_secs());
    assert!(MAX_READING_BYTES < u32::MAX as usize);
    assert!(MAX_MESSAGE_BYTES <= MAX_READING_BYTES / CALLER_SHARE);
    assert!(MAX_RESPONSE_BYTES <= LISTING_RESERVED_BYTES);
    assert!(LISTING_RESERVED_BYTES <= MAX_LISTING_BYTES / CALLER_SHARE);
    assert!(MAX_LISTING_BYTES < u32::MAX as usize);
    assert!(MAX_RESPONSES_BYTES < u32::MAX as usize);
    assert!(
        MAX_LANES * (MAX_PAYLOAD_BYTES + 3 * MAX_NAME_BYTES + FEED_EVENT_OVERHEAD)
            <= MAX_SUBSCRIPTION_BYTES / CALLER_SHARE
    );
    assert!(MAX_SUBSCRIPTION_BYTES < u32::MAX as usize);
    assert!(STATEMENT_TIMEOUT.as_secs() < READ_TIMEOUT.as_secs());
    assert!(COMMIT_RETRY.as_secs() + COMMIT_TIMEOUT.as_secs() < LEDGER_RETENTION.as_secs());
};
