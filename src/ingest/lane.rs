//! A lane: a serial commit queue. Its task commits what has queued as one batch, answers the
//! requests in it, and repeats. Submissions that need too many comparisons for one batch are set
//! aside and committed in parts, between the batches of other callers.

use std::{collections::HashMap, sync::Arc};

use tokio::sync::mpsc;
use tracing::{Instrument, info_span};

use super::{Shared, Submission, batch::BatchBuilder, costly::Costly, settle};
use crate::{access::CallerKey, store::Store, trace};

/// Runs until the queue is closed and empty.
pub(super) async fn run(
    lane: u16,
    store: Arc<dyn Store>,
    mut queue: mpsc::Receiver<Submission>,
    shared: Arc<Shared>,
) {
    let mut left_over = None;
    let mut costly = Costly::default();
    loop {
        let first = match left_over.take() {
            None if costly.is_empty() => {
                let received = tokio::select! {
                    received = queue.recv() => received,
                    () = shared.closing.cancelled(), if !queue.is_closed() => {
                        queue.close();
                        continue;
                    }
                };
                let Some(submission) = received else { return };
                Some(submission)
            }
            None => queue.try_recv().ok(),
            left_over => left_over,
        };
        if let Some(first) = first {
            let mut batch = BatchBuilder::new(first);
            while left_over.is_none()
                && let Ok(next) = queue.try_recv()
            {
                left_over = batch.add(next);
            }
            commit(lane, &*store, batch.into_submissions(), &shared, &mut costly).await;
        }
        costly.commit_part(lane, &*store, &shared).await;
        if shared.closing.is_cancelled() {
            queue.close();
        }
    }
}

/// Commits submissions as one batch and answers them. If they need too many comparisons, the
/// submissions of the costliest callers are set aside, one caller after another.
async fn commit(
    lane: u16,
    store: &dyn Store,
    mut submissions: Vec<Submission>,
    shared: &Shared,
    costly: &mut Costly,
) {
    loop {
        submissions =
            submissions.into_iter().filter_map(|submission| costly.pass(submission)).collect();
        let sizes: Vec<usize> =
            submissions.iter().map(|submission| submission.events.len()).collect();
        let mut events = Vec::with_capacity(sizes.iter().sum());
        submissions.iter_mut().for_each(|submission| events.append(&mut submission.events));
        if events.is_empty() {
            return;
        }
        let span = info_span!(target: trace::TARGET, "commit", lane, events = events.len());
        submissions.iter().for_each(|submission| _ = span.follows_from(&submission.span));
        let settled = settle::settle(lane, store, events, shared).instrument(span).await;
        let mut outcomes = match settled {
            Err(settle::Failure::TooMuch { mut events, excess }) => {
                for (submission, size) in submissions.iter_mut().zip(&sizes) {
                    let behind = events.split_off(*size);
                    submission.events = std::mem::replace(&mut events, behind);
                }
                let caller = costliest(&submissions, &excess);
                let (aside, others): (Vec<_>, Vec<_>) = submissions
                    .into_iter()
                    .partition(|submission| Some(submission.account.caller()) == caller.as_ref());
                aside.into_iter().for_each(|submission| costly.set_aside(submission));
                submissions = others;
                continue;
            }
            Err(settle::Failure::Error(error)) => Err(error),
            Ok(outcomes) => Ok(outcomes.into_iter()),
        };
        for (submission, size) in submissions.into_iter().zip(sizes) {
            submission.answer(match &mut outcomes {
                Ok(outcomes) => Ok(outcomes.take(size).collect()),
                Err(error) => Err(error.clone()),
            });
        }
        return;
    }
}

/// The caller whose events need the most comparisons. `excess` has indexes over all submissions.
fn costliest(submissions: &[Submission], excess: &[(usize, usize)]) -> Option<CallerKey> {
    let callers: Vec<&CallerKey> = submissions
        .iter()
        .flat_map(|submission| submission.events.iter().map(|_| submission.account.caller()))
        .collect();
    let mut by_caller: HashMap<&CallerKey, usize> = HashMap::new();
    for &(index, bytes) in excess {
        *by_caller.entry(callers[index]).or_default() += bytes;
    }
    let (caller, _) = by_caller.into_iter().max_by_key(|(_, bytes)| *bytes)?;
    Some(caller.clone())
}
