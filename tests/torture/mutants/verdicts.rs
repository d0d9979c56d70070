//! Stores that report wrong verdicts, and outcomes that are made up.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, PoisonError},
};

use async_trait::async_trait;
use event_aggregator::{
    event::{Event, EventKey, NewEvent, Outcome, Timestamp, Verdict},
    store::{Batch, Error, Store, StoreLayer},
};

/// The outcome of a new event.
pub fn new(batch: &Batch) -> Outcome {
    Outcome { verdict: Verdict::Accepted, first_received_at: batch.received_at, compared_bytes: 0 }
}

/// Everything is new.
pub fn all_new(batch: &Batch) -> Vec<Outcome> {
    batch.events.iter().map(|_| new(batch)).collect()
}

/// What is stored under the keys of a batch.
pub async fn look_up(store: &dyn Store, batch: &Batch) -> Result<HashMap<EventKey, Event>, Error> {
    let keys: HashSet<&EventKey> = batch.events.iter().map(|event| &event.key).collect();
    let found = store.get(keys.into_iter().cloned().collect(), i32::MAX as usize).await?;
    Ok(found.events.into_iter().map(|(_, event)| (event.key.clone(), event)).collect())
}

/// A key that is twice in a batch is new both times.
pub struct AcceptedTwice(pub Arc<dyn Store>);

#[async_trait]
impl StoreLayer for AcceptedTwice {
    fn inner(&self) -> &dyn Store {
        &*self.0
    }

    async fn commit(&self, batch: Arc<Batch>) -> Result<Vec<Outcome>, Error> {
        let outcomes = self.0.commit(Arc::clone(&batch)).await?;
        let mut new_keys = HashSet::new();
        let each = batch.events.iter().zip(outcomes);
        let each = each.map(|(event, outcome)| match outcome.verdict {
            Verdict::Accepted => {
                new_keys.insert(&event.key);
                outcome
            }
            _ if new_keys.contains(&event.key) => new(&batch),
            _ => outcome,
        });
        Ok(each.collect())
    }
}

/// A conflict is counted as a conflict, and reported as a plain duplicate.
pub struct ConflictIsDuplicate(pub Arc<dyn Store>);

#[async_trait]
impl StoreLayer for ConflictIsDuplicate {
    fn inner(&self) -> &dyn Store {
        &*self.0
    }

    async fn commit(&self, batch: Arc<Batch>) -> Result<Vec<Outcome>, Error> {
        let mut outcomes = self.0.commit(batch).await?;
        for outcome in &mut outcomes {
            if let Verdict::Conflict(_) = outcome.verdict {
                outcome.verdict = Verdict::Duplicate;
            }
        }
        Ok(outcomes)
    }
}

/// Repetitions that this process knows are dropped without being counted.
pub struct UncountedDuplicates {
    store: Arc<dyn Store>,
    /// Events that this process has stored, or found stored.
    known: Mutex<HashMap<EventKey, (NewEvent, Timestamp)>>,
}

impl UncountedDuplicates {
    pub fn over(store: Arc<dyn Store>) -> Self {
        Self { store, known: Mutex::default() }
    }

    fn duplicate(&self, event: &NewEvent) -> Option<Outcome> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let (same, received_at) = known.get(&event.key)?;
        let is_same =
            *same.source == *event.source && same.payload.as_str() == event.payload.as_str();
        is_same.then_some(Outcome {
            verdict: Verdict::Duplicate,
            first_received_at: *received_at,
            compared_bytes: 0,
        })
    }
}

#[async_trait]
impl StoreLayer for UncountedDuplicates {
    fn inner(&self) -> &dyn Store {
        &*self.store
    }

    /// Commits only events that are not known.
    async fn commit(&self, batch: Arc<Batch>) -> Result<Vec<Outcome>, Error> {
        let Batch { id, lane, received_at, ref events } = *batch;
        let known: Vec<Option<Outcome>> =
            events.iter().map(|event| self.duplicate(event)).collect();
        let others = events.iter().zip(&known).filter(|(_, known)| known.is_none());
        let others: Vec<NewEvent> = others.map(|(event, _)| event.clone()).collect();
        let rest = Arc::new(Batch { id, lane, received_at, events: others });
        let judged = match rest.events.is_empty() {
            true => Vec::new(),
            false => self.store.commit(Arc::clone(&rest)).await?,
        };
        for (event, outcome) in rest.events.iter().zip(&judged) {
            if !matches!(outcome.verdict, Verdict::Conflict(_)) {
                let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
                let stored = (event.clone(), outcome.first_received_at);
                known.entry(event.key.clone()).or_insert(stored);
            }
        }
        let mut judged = judged.into_iter();
        Ok(known.into_iter().filter_map(|known| known.or_else(|| judged.next())).collect())
    }
}
