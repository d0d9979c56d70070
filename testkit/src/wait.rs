//! Waiting for a condition.

use std::{
    thread,
    time::{Duration, Instant},
};

/// Far longer than any success takes, which may include a timeout of a minute.
const TIMEOUT: Duration = Duration::from_secs(180);
const INTERVAL: Duration = Duration::from_millis(2);

/// Polls a condition, and panics if it does not become true.
#[track_caller]
pub fn wait_until(mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + TIMEOUT;
    while !condition() {
        assert!(Instant::now() < deadline, "the condition is still false after {TIMEOUT:?}");
        thread::sleep(INTERVAL);
    }
}

/// The same for a condition that is asked for asynchronously.
pub async fn wait_until_async(mut condition: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + TIMEOUT;
    while !condition().await {
        assert!(Instant::now() < deadline, "the condition is still false after {TIMEOUT:?}");
        tokio::time::sleep(INTERVAL).await;
    }
}
