//! Batching. A batch is what queued during the previous commit, so batches are small under light
//! load and grow when the store is the bottleneck. Nothing here waits.

use super::Submission;
use crate::limits::{MAX_BATCH_BYTES, MAX_BATCH_EVENTS};

/// Submissions that will be committed together.
#[derive(Debug)]
pub(super) struct BatchBuilder {
    submissions: Vec<Submission>,
    events: usize,
    bytes: usize,
}

impl BatchBuilder {
    /// A batch has at least one submission, whatever its size.
    pub(super) fn new(first: Submission) -> Self {
        let (events, bytes) = (first.events.len(), first.bytes);
        Self { submissions: vec![first], events, bytes }
    }

    /// Adds a submission, or returns it if it would make the batch too large.
    pub(super) fn add(&mut self, next: Submission) -> Option<Submission> {
        let (events, bytes) = (self.events + next.events.len(), self.bytes + next.bytes);
        if events > MAX_BATCH_EVENTS || bytes > MAX_BATCH_BYTES {
            return Some(next);
        }
        (self.events, self.bytes) = (events, bytes);
        self.submissions.push(next);
        None
    }

    pub(super) fn into_submissions(self) -> Vec<Submission> {
        self.submissions
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ingest::submission;

    #[test]
    fn batch_is_limited_by_bytes_but_never_empty() {
        let submission = |bytes| submission(Vec::new(), bytes).0;
        let mut batch = BatchBuilder::new(submission(MAX_BATCH_BYTES + 1));
        assert!(batch.add(submission(1)).is_some());
        let mut batch = BatchBuilder::new(submission(MAX_BATCH_BYTES - 1));
        assert!(batch.add(submission(1)).is_none());
        assert!(batch.add(submission(1)).is_some());
        assert_eq!(batch.into_submissions().len(), 2);
    }
}
