//! Submissions that need too many payload comparisons for one batch. They are set aside and
//! committed in parts, between the batches of other callers. Submissions of one caller stay in
//! order, so later ones wait behind those set aside.

use std::collections::VecDeque;

use super::{
    Reply, Settled, Shared, Submission,
    settle::{self, Failure},
};
use crate::{
    access::CallerKey,
    event::NewEvent,
    limits::{MAX_BATCH_BYTES, MAX_BATCH_EVENTS, MAX_COMPARED_BYTES},
    store::Store,
};

/// Callers whose submissions were set aside. They take turns.
#[derive(Debug, Default)]
pub(super) struct Costly(VecDeque<Caller>);

#[derive(Debug)]
struct Caller {
    key: CallerKey,
    /// Submissions of the caller, in order.
    waiting: VecDeque<Waiting>,
    /// Number of events per part.
    part: usize,
}

#[derive(Debug)]
struct Waiting {
    submission: Submission,
    /// Outcomes of the first events. The rest is not committed yet.
    outcomes: Vec<Settled>,
}

impl Costly {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Sets a submission aside, behind those of its caller.
    pub(super) fn set_aside(&mut self, submission: Submission) {
        let Some(submission) = self.pass(submission) else { return };
        let key = submission.account.caller().clone();
        let waiting = VecDeque::from([Waiting { submission, outcomes: Vec::new() }]);
        self.0.push_back(Caller { key, waiting, part: 1 });
    }

    /// Returns the submission, unless others of its caller are set aside: then it queues behind
    /// them.
    pub(super) fn pass(&mut self, submission: Submission) -> Option<Submission> {
        let caller = submission.account.caller();
        match self.0.iter_mut().find(|aside| aside.key == *caller) {
            Some(aside) => {
                aside.waiting.push_back(Waiting { submission, outcomes: Vec::new() });
                None
            }
            None => Some(submission),
        }
    }

    /// Commits a part for the next caller, and answers the submissions that this completes.
    pub(super) async fn commit_part(&mut self, lane: u16, store: &dyn Store, shared: &Shared) {
        let Some(mut caller) = self.0.pop_front() else { return };
        let (submissions, part) = caller.next_part();
        match settle::settle(lane, store, part, shared).await {
            Ok(outcomes) => caller.settled(outcomes),
            Err(Failure::TooMuch { .. }) => caller.part = 1,
            // It is unknown which of them were stored.
            Err(Failure::Error(error)) => {
                (0..submissions).for_each(|_| caller.answer_first(Err(error.clone())));
            }
        }
        if !caller.waiting.is_empty() {
            self.0.push_back(caller);
        }
    }
}

impl Caller {
    /// The events to commit next and the number of submissions they belong to: either some of the
    /// first submission, or the rest of it with complete ones behind it.
    fn next_part(&self) -> (usize, Vec<NewEvent>) {
        let mut part: Vec<NewEvent> = Vec::new();
        let (mut submissions, mut bytes) = (0, 0);
        for (number, waiting) in self.waiting.iter().enumerate() {
            let rest = &waiting.submission.events[waiting.outcomes.len()..];
            let room = self.part.min(MAX_BATCH_EVENTS) - part.len();
            bytes += waiting.submission.bytes;
            if number > 0 && (rest.len() > room || bytes > MAX_BATCH_BYTES) {
                break;
            }
            part.extend_from_slice(&rest[..rest.len().min(room)]);
            submissions += 1;
        }
        (submissions, part)
    }

    /// Records the outcomes of a part and answers the submissions that it completes. The next part
    /// is larger, unless it might need too many comparisons.
    fn settled(&mut self, outcomes: Vec<Settled>) {
        let compared: usize = outcomes.iter().map(Settled::compared_bytes).sum();
        if compared <= MAX_COMPARED_BYTES / 4 {
            self.part = (self.part * 2).min(MAX_BATCH_EVENTS);
        }
        let mut outcomes = outcomes.into_iter();
        while let Some(first) = self.waiting.front_mut() {
            let missing = first.submission.events.len() - first.outcomes.len();
            first.outcomes.extend(outcomes.by_ref().take(missing));
            if first.outcomes.len() < first.submission.events.len() {
                break;
            }
            let complete = std::mem::take(&mut first.outcomes);
            self.answer_first(Ok(complete));
        }
    }

    fn answer_first(&mut self, reply: Reply) {
        if let Some(Waiting { submission, outcomes }) = self.waiting.pop_front() {
            submission.charge(&outcomes);
            submission.answer(reply);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        event::{EventKey, Name, Outcome, Payload, Timestamp, Verdict},
        ingest::submission,
    };

    fn events(count: usize) -> Vec<NewEvent> {
        let name = |text: String| Name::new("name", text).expect("valid");
        let event = |n: usize| NewEvent {
            key: EventKey { topic: name("t".to_owned()), event_id: name(n.to_string()) },
            timestamp: None,
            source: name("s".to_owned()),
            payload: Payload::default(),
        };
        (0..count).map(event).collect()
    }

    /// Outcomes of events that each needed a comparison with this many bytes.
    fn outcomes(count: usize, compared_bytes: usize) -> Vec<Settled> {
        let first_received_at = Timestamp::from_micros(0).expect("valid");
        let verdict = Verdict::Duplicate;
        vec![Settled::Judged(Outcome { verdict, first_received_at, compared_bytes }); count]
    }

    #[test]
    fn parts_grow_while_cheap_and_include_whole_submissions() {
        let mut costly = Costly::default();
        let mut answers = Vec::new();
        for count in [3, 1, 1, 1, 20] {
            let (submission, answer) = submission(events(count), 1);
            costly.set_aside(submission);
            answers.push(answer);
        }
        let mut caller = costly.0.pop_front().expect("one caller");
        assert!(costly.is_empty());
        let mut step = |compared_bytes| {
            let (submissions, part) = caller.next_part();
            caller.settled(outcomes(part.len(), compared_bytes));
            let answered = answers.iter_mut().filter_map(|answer| answer.try_recv().ok());
            (
                submissions,
                part.len(),
                answered.map(|reply| reply.expect("stored").len()).collect::<Vec<_>>(),
            )
        };
        assert_eq!(step(MAX_COMPARED_BYTES), (1, 1, vec![]));
        assert_eq!(step(0), (1, 1, vec![]));
        // The last event of the first submission, and a complete submission.
        assert_eq!(step(0), (2, 2, vec![3, 1]));
        assert_eq!(step(0), (2, 2, vec![1, 1]));
        assert_eq!(step(0), (1, 8, vec![]));
        assert_eq!(step(0), (1, 12, vec![20]));
        assert!(caller.waiting.is_empty());
    }
}
