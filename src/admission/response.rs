//! Large responses that wait for their clients: handed out in chunks, so that little of them waits inside
//! of a connection, and dropped if a client does not read one in time.

use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::time::sleep;
use tokio_util::task::AbortOnDropHandle;

use super::Permit;
use crate::limits::{RESPONSE_CHUNK_BYTES, RESPONSE_TIMEOUT};

/// A response that is not sent yet.
#[derive(Debug)]
pub(crate) struct BufferedResponse {
    held: Arc<Mutex<Option<Held>>>,
    /// A connection does not poll a body while its client reads nothing, so a task watches the time.
    _expiring: AbortOnDropHandle<()>,
}

#[derive(Debug)]
struct Held {
    left: Bytes,
    _permit: Option<Permit>,
}

/// A permit for a response that is not made yet. It travels in the extensions of the response, which can
/// be cloned.
#[derive(Debug, Clone)]
pub struct Reservation(Arc<Permit>);

impl Reservation {
    pub(super) fn new(permit: Permit) -> Self {
        Self(Arc::new(permit))
    }

    /// The permit, unless a clone of it is kept elsewhere.
    pub(super) fn into_permit(self) -> Option<Permit> {
        Arc::into_inner(self.0)
    }
}

/// A response that was not read within [`RESPONSE_TIMEOUT`], and was dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the response was not read in time")]
pub(crate) struct Expired;

impl BufferedResponse {
    /// A response, with its permit. `on_expiry` is called when it is dropped because of the time.
    pub(crate) fn new(
        answer: Bytes,
        permit: Option<Permit>,
        on_expiry: impl FnOnce() + Send + 'static,
    ) -> Self {
        let held = Arc::new(Mutex::new(Some(Held { left: answer, _permit: permit })));
        let expiring = Arc::clone(&held);
        let expiring = tokio::spawn(async move {
            sleep(RESPONSE_TIMEOUT).await;
            drop(expiring.lock().take());
            on_expiry();
        });
        Self { held, _expiring: AbortOnDropHandle::new(expiring) }
    }

    /// The next chunk. None at the end.
    pub(crate) fn next(&self) -> Result<Option<Bytes>, Expired> {
        let mut held = self.held.lock();
        let Held { left, .. } = held.as_mut().ok_or(Expired)?;
        Ok(chunk(left))
    }

    /// Bytes that are left.
    pub(crate) fn left(&self) -> usize {
        self.held.lock().as_ref().map_or(0, |held| held.left.len())
    }
}

/// Splits the next chunk off a response. It is a copy, because a slice keeps the whole allocation: a chunk
/// inside of a connection would keep a response that was dropped.
pub(crate) fn chunk(left: &mut Bytes) -> Option<Bytes> {
    let size = left.len().min(RESPONSE_CHUNK_BYTES);
    (size > 0).then(|| Bytes::copy_from_slice(&left.split_to(size)))
}
