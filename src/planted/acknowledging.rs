//! Wrong ways to tell producers what became of their events.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, LazyLock, Mutex, PoisonError},
    time::Duration,
};

use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::{Bug, is};
use crate::{
    admission::Full,
    event::{Difference, Event, EventKey, NewEvent, Outcome, Timestamp, Verdict},
    ingest,
    store::{Batch, Error, Store},
};

/// Before a commit is tried again.
const PAUSE: Duration = Duration::from_millis(50);

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_millis(50);

/// Everything is new.
pub(super) fn all_new(batch: &Batch) -> Vec<Outcome> {
    batch.events.iter().map(|_| new(batch)).collect()
}

fn new(batch: &Batch) -> Outcome {
    Outcome { verdict: Verdict::Accepted, first_received_at: batch.received_at, compared_bytes: 0 }
}

/// What is stored under the keys of a batch.
pub(super) async fn look_up(
    store: &Arc<dyn Store>,
    batch: &Batch,
) -> Result<HashMap<EventKey, Event>, Error> {
    let keys: HashSet<&EventKey> = batch.events.iter().map(|event| &event.key).collect();
    let found = store.get(keys.into_iter().cloned().collect(), i32::MAX as usize).await?;
    Ok(found.events.into_iter().map(|(_, event)| (event.key.clone(), event)).collect())
}

/// Judges a batch by what is stored now, and commits it afterwards.
pub(super) async fn first(
    store: &Arc<dyn Store>,
    batch: Arc<Batch>,
) -> Result<Vec<Outcome>, Error> {
    let found = look_up(store, &batch).await?;
    let mut new_keys = HashSet::new();
    let judge = |event: &NewEvent| match found.get(&event.key) {
        Some(stored) => {
            let difference = Difference {
                source: *stored.source != *event.source,
                payload: stored.payload.as_str() != event.payload.as_str(),
                ..Difference::default()
            };
            let verdict = match difference == Difference::default() {
                true => Verdict::Duplicate,
                false => Verdict::Conflict(difference),
            };
            Outcome { verdict, first_received_at: stored.received_at, compared_bytes: 0 }
        }
        None if new_keys.insert(event.key.clone()) => new(&batch),
        None => Outcome { verdict: Verdict::Duplicate, ..new(&batch) },
    };
    let outcomes = batch.events.iter().map(judge).collect();
    let store = Arc::clone(store);
    tokio::spawn(async move {
        while let Err(_later) = store.commit(Arc::clone(&batch)).await {
            tokio::time::sleep(PAUSE).await;
        }
    });
    Ok(outcomes)
}

/// A repetition within the batch is as new as what it repeats.
pub(super) fn repeated_as_new(batch: &Batch, outcomes: Vec<Outcome>) -> Vec<Outcome> {
    let mut new_keys = HashSet::new();
    let each = batch.events.iter().zip(outcomes);
    each.map(|(event, outcome)| match outcome.verdict {
        Verdict::Accepted => {
            new_keys.insert(&event.key);
            outcome
        }
        _ if new_keys.contains(&event.key) => new(batch),
        _ => outcome,
    })
    .collect()
}

/// A conflict counts as told, and is told as a duplicate.
pub(super) fn without_conflict(outcome: Outcome) -> Outcome {
    match outcome.verdict {
        Verdict::Conflict(_) => Outcome { verdict: Verdict::Duplicate, ..outcome },
        _ => outcome,
    }
}

/// Events that this process has stored, or found stored.
#[derive(Default)]
pub(super) struct Known(Mutex<HashMap<EventKey, (NewEvent, Timestamp)>>);

impl Known {
    /// Answers for events that are known, and commits only the others.
    pub(super) async fn drop_repeated(
        &self,
        store: &Arc<dyn Store>,
        batch: Arc<Batch>,
    ) -> Result<Vec<Outcome>, Error> {
        let Batch { id, lane, received_at, ref events } = *batch;
        let known: Vec<Option<Outcome>> =
            events.iter().map(|event| self.duplicate(event)).collect();
        let others = events.iter().zip(&known).filter(|(_, known)| known.is_none());
        let others: Vec<NewEvent> = others.map(|(event, _)| event.clone()).collect();
        let rest = Arc::new(Batch { id, lane, received_at, events: others });
        let mut judged = match rest.events.is_empty() {
            true => Vec::new(),
            false => store.commit(Arc::clone(&rest)).await?,
        }
        .into_iter();
        for (event, outcome) in rest.events.iter().zip(judged.clone()) {
            if !matches!(outcome.verdict, Verdict::Conflict(_)) {
                let known = (event.clone(), outcome.first_received_at);
                let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
                all.entry(event.key.clone()).or_insert(known);
            }
        }
        Ok(known.into_iter().filter_map(|known| known.or_else(|| judged.next())).collect())
    }

    fn duplicate(&self, event: &NewEvent) -> Option<Outcome> {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
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

static SEEN: LazyLock<Mutex<HashSet<EventKey>>> = LazyLock::new(Mutex::default);

/// Outcomes of events that were all sent to this process before, whatever became of that.
pub(crate) fn seen_before(events: &[NewEvent]) -> Option<Vec<Option<Outcome>>> {
    if !is(Bug::EarlyDedup) {
        return None;
    }
    let mut seen = SEEN.lock().unwrap_or_else(PoisonError::into_inner);
    let all = events.iter().all(|event| seen.contains(&event.key));
    seen.extend(events.iter().map(|event| event.key.clone()));
    let duplicate = Outcome {
        verdict: Verdict::Duplicate,
        first_received_at: Timestamp::now(),
        compared_bytes: 0,
    };
    all.then(|| vec![Some(duplicate); events.len()])
}

/// Told when the process is to stop.
pub(super) static STOPPING: LazyLock<CancellationToken> = LazyLock::new(CancellationToken::new);

/// Gives up waiting for what was submitted, and says that nothing of it was done.
pub(crate) async fn in_time<T, E>(
    reply: impl Future<Output = Result<Result<T, ingest::Error>, E>>,
) -> Result<Result<T, ingest::Error>, E> {
    if is(Bug::LateIsRefused) {
        let refused = Ok(Err(ingest::Error::QueueFull(Full::All)));
        return timeout(PATIENCE, reply).await.unwrap_or(refused);
    }
    tokio::select! {
        biased;
        reply = reply => reply,
        () = STOPPING.cancelled(), if is(Bug::AcksDroppedOnDrain) => {
            Ok(Err(ingest::Error::Stopping))
        }
    }
}
