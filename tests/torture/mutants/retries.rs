//! Stores that draw the wrong conclusion from a commit with an unknown outcome.

use std::{
    collections::HashSet,
    error::Error as StdError,
    sync::{Arc, Mutex, PoisonError},
};

use async_trait::async_trait;
use event_aggregator::{
    event::Outcome,
    store::{Batch, Error, Store, StoreLayer},
};
use uuid::Uuid;

use super::verdicts::{all_new, look_up};

/// A batch whose commit got no response is committed again under another id.
pub struct BlindRetry(Retrying);

/// The same, unless all its events are found in the database.
pub struct ProbeBySelect(Retrying);

/// The same, if the response was an error, as from a server that crashed during the commit.
pub struct PanicIsAbort(Retrying);

/// A batch whose commit got no response counts as committed.
pub struct UnknownIsDone(pub Arc<dyn Store>);

/// A store, and the batches whose commits got no response.
struct Retrying {
    store: Arc<dyn Store>,
    doubts: Mutex<HashSet<Uuid>>,
}

impl Retrying {
    fn over(store: Arc<dyn Store>) -> Self {
        Self { store, doubts: Mutex::default() }
    }

    /// Commits the batch, or the same events under another id if its outcome is in doubt.
    async fn commit(&self, batch: &Arc<Batch>) -> Result<Vec<Outcome>, Error> {
        if !self.is_in_doubt(batch) {
            return self.store.commit(Arc::clone(batch)).await;
        }
        let Batch { lane, received_at, ref events, .. } = **batch;
        let (id, events) = (received_at.new_uuid(), events.clone());
        self.store.commit(Arc::new(Batch { id, lane, received_at, events })).await
    }

    /// Commits the batch under another id from the second time on.
    async fn commit_blindly(&self, batch: &Arc<Batch>) -> Result<Vec<Outcome>, Error> {
        let result = self.commit(batch).await;
        if let Err(Error::Unknown(_)) = result {
            self.doubt(batch);
        }
        result
    }

    fn is_in_doubt(&self, batch: &Batch) -> bool {
        self.doubts.lock().unwrap_or_else(PoisonError::into_inner).contains(&batch.id)
    }

    fn doubt(&self, batch: &Batch) {
        self.doubts.lock().unwrap_or_else(PoisonError::into_inner).insert(batch.id);
    }
}

impl BlindRetry {
    pub fn over(store: Arc<dyn Store>) -> Self {
        Self(Retrying::over(store))
    }
}

#[async_trait]
impl StoreLayer for BlindRetry {
    fn inner(&self) -> &dyn Store {
        &*self.0.store
    }

    async fn commit(&self, batch: Arc<Batch>) -> Result<Vec<Outcome>, Error> {
        self.0.commit_blindly(&batch).await
    }
}

impl ProbeBySelect {
    pub fn over(store: Arc<dyn Store>) -> Self {
        Self(Retrying::over(store))
    }
}

#[async_trait]
impl StoreLayer for ProbeBySelect {
    fn inner(&self) -> &dyn Store {
        &*self.0.store
    }

    async fn commit(&self, batch: Arc<Batch>) -> Result<Vec<Outcome>, Error> {
        if self.0.is_in_doubt(&batch) {
            let found = look_up(&*self.0.store, &batch).await?;
            if batch.events.iter().all(|event| found.contains_key(&event.key)) {
                return Ok(all_new(&batch));
            }
        }
        self.0.commit_blindly(&batch).await
    }
}

impl PanicIsAbort {
    pub fn over(store: Arc<dyn Store>) -> Self {
        Self(Retrying::over(store))
    }
}

#[async_trait]
impl StoreLayer for PanicIsAbort {
    fn inner(&self) -> &dyn Store {
        &*self.0.store
    }

    async fn commit(&self, batch: Arc<Batch>) -> Result<Vec<Outcome>, Error> {
        let result = self.0.commit(&batch).await;
        if let Err(Error::Unknown(cause)) = &result
            && is_from_server(&**cause)
        {
            self.0.doubt(&batch);
        }
        result
    }
}

/// Whether the database itself reported the error.
fn is_from_server(error: &(dyn StdError + 'static)) -> bool {
    // As the store redacts it.
    anyhow::Chain::new(error).any(|cause| cause.to_string().starts_with("db error: "))
}

#[async_trait]
impl StoreLayer for UnknownIsDone {
    fn inner(&self) -> &dyn Store {
        &*self.0
    }

    async fn commit(&self, batch: Arc<Batch>) -> Result<Vec<Outcome>, Error> {
        match self.0.commit(Arc::clone(&batch)).await {
            Err(Error::Unknown(_)) => Ok(all_new(&batch)),
            result => result,
        }
    }
}
