//! Large answers on their way out: given out in portions, so that hardly any of it waits inside of a
//! connection, and thrown away if nobody takes it in time.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use tokio::time::sleep;
use tokio_util::task::AbortOnDropHandle;

use super::Permit;
use crate::limits::{ANSWER_TIMEOUT, SMALL_ANSWER_BYTES};

/// An answer that is not taken yet, and what is kept as long as it is.
#[derive(Debug)]
pub struct LargeAnswer<T> {
    held: Arc<Mutex<Option<Held<T>>>>,
    /// A connection does not ask for more while its other end takes nothing, so it cannot watch the time.
    _expiring: AbortOnDropHandle<()>,
}

#[derive(Debug)]
struct Held<T> {
    left: Bytes,
    kept: T,
    _permit: Option<Permit>,
}

/// A permit for an answer that is still to be made. It travels with the response, whose extensions can
/// be cloned.
#[derive(Debug, Clone)]
pub struct Reserved(Arc<Permit>);

impl Reserved {
    pub(super) fn new(permit: Permit) -> Self {
        Self(Arc::new(permit))
    }

    /// The permit, unless a clone of it is kept elsewhere.
    pub(super) fn into_permit(self) -> Option<Permit> {
        Arc::into_inner(self.0)
    }
}

/// An answer that was not taken within [`ANSWER_TIMEOUT`], and is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the answer was not taken in time")]
pub struct Expired;

impl<T: Send + 'static> LargeAnswer<T> {
    /// An answer, and what is dropped with it.
    pub fn new(answer: Bytes, kept: T, permit: Option<Permit>) -> Self {
        let held = Arc::new(Mutex::new(Some(Held { left: answer, kept, _permit: permit })));
        let expiring = Arc::clone(&held);
        let expiring = tokio::spawn(async move {
            sleep(ANSWER_TIMEOUT).await;
            drop(lock(&expiring).take());
        });
        Self { held, _expiring: AbortOnDropHandle::new(expiring) }
    }

    /// The next portion; none at its end.
    pub fn next(&self) -> Result<Option<Bytes>, Expired> {
        let mut held = lock(&self.held);
        let Held { left, .. } = held.as_mut().ok_or(Expired)?;
        Ok(portion(left))
    }

    /// Bytes that are left.
    pub fn left(&self) -> usize {
        lock(&self.held).as_ref().map_or(0, |held| held.left.len())
    }

    /// What was kept with it, unless it was too late.
    pub fn into_kept(self) -> Option<T> {
        lock(&self.held).take().map(|held| held.kept)
    }
}

/// Takes the next portion off an answer. It is a copy, because a part of a large allocation keeps all of it:
/// what waits inside of a connection would keep an answer that is thrown away.
pub fn portion(left: &mut Bytes) -> Option<Bytes> {
    let size = left.len().min(SMALL_ANSWER_BYTES);
    (size > 0).then(|| Bytes::copy_from_slice(&left.split_to(size)))
}

fn lock<T>(held: &Mutex<Option<Held<T>>>) -> MutexGuard<'_, Option<Held<T>>> {
    held.lock().unwrap_or_else(PoisonError::into_inner)
}
