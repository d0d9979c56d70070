//! Wrong ways out of a commit whose outcome nobody knows.

use std::{
    collections::HashSet,
    sync::{Arc, Mutex, PoisonError},
};

use uuid::Uuid;

use super::acknowledging::{all_new, look_up};
use crate::{
    event::Outcome,
    store::{Batch, Error, Store},
};

/// Batches whose commits got no answer.
#[derive(Default)]
pub(super) struct Doubts(Mutex<HashSet<Uuid>>);

impl Doubts {
    /// The same events, as if they had come now.
    pub(super) async fn retry_blindly(
        &self,
        store: &Arc<dyn Store>,
        batch: Arc<Batch>,
    ) -> Result<Vec<Outcome>, Error> {
        let result = store.commit(self.again(&batch)).await;
        if let Err(Error::Unknown(_)) = result {
            self.doubt(&batch);
        }
        result
    }

    /// The same events, as if they had come now, if the database said that something went wrong.
    pub(super) async fn retry_after_errors(
        &self,
        store: &Arc<dyn Store>,
        batch: Arc<Batch>,
    ) -> Result<Vec<Outcome>, Error> {
        let result = store.commit(self.again(&batch)).await;
        if let Err(Error::Unknown(cause)) = &result
            && let Some(error) = cause.downcast_ref::<tokio_postgres::Error>()
            && error.as_db_error().is_some()
        {
            self.doubt(&batch);
        }
        result
    }

    /// If all events are there they must be ours; if not, nothing can have happened.
    pub(super) async fn probe(
        &self,
        store: &Arc<dyn Store>,
        batch: Arc<Batch>,
    ) -> Result<Vec<Outcome>, Error> {
        if self.is_in_doubt(&batch) {
            let found = look_up(store, &batch).await?;
            if batch.events.iter().all(|event| found.contains_key(&event.key)) {
                return Ok(all_new(&batch));
            }
        }
        self.retry_blindly(store, batch).await
    }

    /// What is committed next: the batch, or under another name if its outcome is in doubt.
    fn again(&self, batch: &Arc<Batch>) -> Arc<Batch> {
        let Batch { lane, received_at, ref events, .. } = **batch;
        match self.is_in_doubt(batch) {
            true => {
                let (id, events) = (received_at.new_uuid(), events.clone());
                Arc::new(Batch { id, lane, received_at, events })
            }
            false => Arc::clone(batch),
        }
    }

    fn is_in_doubt(&self, batch: &Batch) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).contains(&batch.id)
    }

    fn doubt(&self, batch: &Batch) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(batch.id);
    }
}
