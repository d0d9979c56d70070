//! How much the service takes on at once, over all connections and by whatever way it is asked: calls,
//! and large requests that are being read.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::limits::{CALLS, READING_BYTES, SMALL_REQUEST_BYTES};

/// What is in progress. Clones are handles to the same one.
#[derive(Debug, Clone)]
pub struct Load {
    calls: Arc<Semaphore>,
    reading: Arc<Semaphore>,
}

/// The room that something takes, until this is dropped.
#[derive(Debug)]
pub struct Room {
    _permit: Option<OwnedSemaphorePermit>,
}

impl Default for Load {
    fn default() -> Self {
        let semaphore = |permits| Arc::new(Semaphore::new(permits));
        Self { calls: semaphore(CALLS), reading: semaphore(READING_BYTES) }
    }
}

impl Load {
    /// Room for one more call, if there is any.
    pub fn call(&self) -> Option<Room> {
        let permit = Arc::clone(&self.calls).try_acquire_owned();
        permit.ok().map(|permit| Room { _permit: Some(permit) })
    }

    /// Room for a request of so many bytes, once there is some. Small ones always have it.
    pub async fn reading(&self, bytes: usize) -> Room {
        if bytes <= SMALL_REQUEST_BYTES {
            return Room { _permit: None };
        }
        let permits = u32::try_from(bytes.min(READING_BYTES)).unwrap_or(u32::MAX);
        // It is never closed.
        Room { _permit: Arc::clone(&self.reading).acquire_many_owned(permits).await.ok() }
    }

    /// How many calls are in progress.
    pub fn calls(&self) -> usize {
        CALLS - self.calls.available_permits()
    }

    /// Bytes of large requests that are being read.
    pub fn reading_bytes(&self) -> usize {
        READING_BYTES - self.reading.available_permits()
    }
}
