//! Calls in progress: the record and the permit of a call until it ends.

use std::sync::Arc;

use parking_lot::Mutex;

use super::Record;
use crate::{admission::Permit, api::Error};

/// A call in progress. Clones are handles to the same call. It ends when the last one is dropped,
/// or earlier.
#[derive(Debug)]
pub(super) struct InProgress<R>(Arc<Mutex<Option<(R, Permit)>>>);

impl<R> Clone for InProgress<R> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<R: Record> InProgress<R> {
    pub(super) fn new(record: R, permit: Permit) -> Self {
        Self(Arc::new(Mutex::new(Some((record, permit)))))
    }

    /// Updates the record, unless the call has ended.
    pub(super) fn record(&self, update: impl FnOnce(&mut R)) {
        if let Some((record, _)) = &mut *self.0.lock() {
            update(record);
        }
    }

    /// Ends the call with an error.
    pub(super) fn fail(&self, error: &Error) {
        self.record(|record| record.error(error));
        self.end();
    }

    /// Ends the call.
    pub(super) fn end(&self) {
        self.0.lock().take();
    }
}
