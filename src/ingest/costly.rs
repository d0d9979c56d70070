//! Submissions of callers whose events repeat too much for one batch: they are committed in parts, and
//! others have their turn between them. The submissions of one caller keep their order, so all that come
//! while some are set aside wait behind those.

use std::collections::VecDeque;

use super::{
    Reply, Shared, Submission,
    settle::{self, Failure},
};
use crate::{event::Outcome, limits::MAX_COMPARED_BYTES, store::Store};

/// Submissions that were set aside, by caller. Callers take turns.
#[derive(Debug, Default)]
pub(super) struct Costly(VecDeque<VecDeque<Waiting>>);

#[derive(Debug)]
struct Waiting {
    submission: Submission,
    /// What became of its first events. The rest is still to be committed.
    outcomes: Vec<Option<Outcome>>,
    /// How many events are committed at once.
    part: usize,
}

impl Costly {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Sets a submission aside, behind those of its caller.
    pub(super) fn set_aside(&mut self, submission: Submission) {
        if let Some(submission) = self.pass(submission) {
            self.0.push_back(VecDeque::from([Waiting::new(submission)]));
        }
    }

    /// Gives a submission back unless others of its caller are set aside. Then it waits behind them.
    pub(super) fn pass(&mut self, submission: Submission) -> Option<Submission> {
        let caller = submission.account.caller();
        let is_of_caller = |waiting: &&mut VecDeque<Waiting>| {
            waiting.front().is_some_and(|first| first.submission.account.caller() == caller)
        };
        match self.0.iter_mut().find(is_of_caller) {
            Some(waiting) => {
                waiting.push_back(Waiting::new(submission));
                None
            }
            None => Some(submission),
        }
    }

    /// Commits a part of the first submission of the caller whose turn it is, and answers it if that was
    /// the last part.
    pub(super) async fn commit_part(&mut self, lane: u16, store: &dyn Store, shared: &Shared) {
        let Some(mut of_caller) = self.0.pop_front() else { return };
        if let Some(first) = of_caller.front_mut()
            && let Some(reply) = first.commit_part(lane, store, shared).await
            && let Some(Waiting { submission, .. }) = of_caller.pop_front()
        {
            submission.answer(reply);
        }
        if !of_caller.is_empty() {
            self.0.push_back(of_caller);
        }
    }
}

impl Waiting {
    fn new(submission: Submission) -> Self {
        Self { submission, outcomes: Vec::new(), part: 1 }
    }

    /// The reply, if this was the last part.
    async fn commit_part(
        &mut self,
        lane: u16,
        store: &dyn Store,
        shared: &Shared,
    ) -> Option<Reply> {
        let rest = &self.submission.events[self.outcomes.len()..];
        let part = rest[..self.part.min(rest.len())].to_vec();
        match settle::settle(lane, store, part, shared).await {
            Ok(outcomes) => {
                let compared = outcomes.iter().flatten().map(|outcome| outcome.compared_bytes);
                if compared.sum::<usize>() <= MAX_COMPARED_BYTES / 4 {
                    self.part *= 2;
                }
                self.outcomes.extend(outcomes);
                let is_done = self.outcomes.len() == self.submission.events.len();
                is_done.then(|| Ok(std::mem::take(&mut self.outcomes)))
            }
            Err(Failure::TooMuch { .. }) => {
                self.part = 1;
                None
            }
            Err(Failure::Error(error)) => Some(Err(error)),
        }
    }
}
