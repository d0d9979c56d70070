//! Submissions that repeat too much for one batch: they are committed in parts, and others have their turn
//! between them. Events of one topic keep their order: what shares a topic with them waits behind them.

use std::collections::{HashSet, VecDeque};

use super::{
    Reply, Shared, Submission,
    settle::{self, Failure},
};
use crate::{
    event::{Name, Outcome},
    store::Store,
};

/// Submissions that were set aside, in their order.
#[derive(Debug, Default)]
pub(super) struct Costly(VecDeque<Waiting>);

#[derive(Debug)]
struct Waiting {
    submission: Submission,
    topics: HashSet<Name>,
    /// What became of its first events. The rest is still to be committed.
    outcomes: Vec<Option<Outcome>>,
    /// How many events are committed at once.
    part: usize,
}

impl Costly {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Sets a submission aside.
    pub(super) fn set_aside(&mut self, submission: Submission) {
        let topics = submission.events.iter().map(|event| event.key.topic.clone()).collect();
        let part = submission.events.len();
        self.0.push_back(Waiting { submission, topics, outcomes: Vec::new(), part });
    }

    /// Gives a submission back unless it has to wait behind one that was set aside.
    pub(super) fn pass(&mut self, submission: Submission) -> Option<Submission> {
        let mut topics = submission.events.iter().map(|event| &event.key.topic);
        let waits = !self.0.is_empty()
            && topics.any(|topic| self.0.iter().any(|waiting| waiting.topics.contains(topic)));
        if !waits {
            return Some(submission);
        }
        self.set_aside(submission);
        None
    }

    /// Commits a part of the first submission, and answers it if that was the last part.
    pub(super) async fn commit_part(&mut self, lane: u16, store: &dyn Store, shared: &Shared) {
        let Some(waiting) = self.0.front_mut() else { return };
        if let Some(reply) = waiting.commit_part(lane, store, shared).await
            && let Some(Waiting { submission, .. }) = self.0.pop_front()
        {
            submission.answer(reply);
        }
    }
}

impl Waiting {
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
                self.outcomes.extend(outcomes);
                let is_done = self.outcomes.len() == self.submission.events.len();
                is_done.then(|| Ok(std::mem::take(&mut self.outcomes)))
            }
            Err(Failure::TooMuch(events)) => {
                self.part = events.len().div_ceil(2);
                None
            }
            Err(Failure::Error(error)) => Some(Err(error)),
        }
    }
}
