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
        let again = match self.is_in_doubt(&batch) {
            true => renamed(&batch),
            false => Arc::clone(&batch),
        };
        self.watched(&batch, store.commit(again).await)
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

    fn is_in_doubt(&self, batch: &Batch) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).contains(&batch.id)
    }

    fn watched<T>(&self, batch: &Batch, result: Result<T, Error>) -> Result<T, Error> {
        if let Err(Error::Unknown(_)) = result {
            self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(batch.id);
        }
        result
    }
}

fn renamed(batch: &Batch) -> Arc<Batch> {
    let Batch { lane, received_at, ref events, .. } = *batch;
    Arc::new(Batch { id: Uuid::now_v7(), lane, received_at, events: events.clone() })
}
