//! How a batch is judged, the same for every backend: repeats inside the batch are folded onto
//! their first occurrence, and what the backend finds stored is compared with what was sent.

use std::collections::{BTreeMap, HashMap};

use super::{Batch, Counters};
use crate::{
    event::{Difference, EventKey, NewEvent, Outcome, Timestamp, Verdict},
    json,
};

/// The state of judging one batch. An event that nothing is [`found`](Self::found) for is new.
pub(super) struct Judgement<'a> {
    batch: &'a Batch,
    /// For each event, the next one with the same key.
    next: Vec<Option<usize>>,
    /// The first event of each key, in order of arrival.
    firsts: Vec<usize>,
    outcomes: Vec<Outcome>,
}

/// What is stored under a key, as far as it matters for judging.
pub(super) struct Original {
    pub(super) timestamp: Option<Timestamp>,
    pub(super) source: String,
    pub(super) payload: String,
    pub(super) received_at: Timestamp,
}

impl<'a> Judgement<'a> {
    pub(super) fn new(batch: &'a Batch) -> Self {
        struct Group {
            first: usize,
            last: usize,
        }
        let events = &batch.events;
        let mut groups: HashMap<&EventKey, Group> = HashMap::with_capacity(events.len());
        let mut next = vec![None; events.len()];
        let mut firsts = Vec::with_capacity(events.len());
        let mut outcomes = Vec::with_capacity(events.len());
        for (index, event) in events.iter().enumerate() {
            let verdict = match groups.get_mut(&event.key) {
                None => {
                    groups.insert(&event.key, Group { first: index, last: index });
                    firsts.push(index);
                    Verdict::Accepted
                }
                Some(group) => {
                    next[group.last] = Some(index);
                    group.last = index;
                    compare(event, &events[group.first])
                }
            };
            outcomes.push(Outcome { verdict, first_received_at: batch.received_at });
        }
        Self { batch, next, firsts, outcomes }
    }

    /// The first event of each key that counts as new, as indexes into the batch, in order of
    /// arrival.
    pub(super) fn new_events(&self) -> impl Iterator<Item = usize> {
        self.firsts
            .iter()
            .copied()
            .filter(|&first| matches!(self.outcomes[first].verdict, Verdict::Accepted))
    }

    /// Takes note that `original` is stored under the key of the new event at `first`.
    pub(super) fn found(&mut self, first: usize, original: &Original) {
        let mut member = Some(first);
        while let Some(index) = member {
            self.outcomes[index] = Outcome {
                verdict: compare_stored(&self.batch.events[index], original),
                first_received_at: original.received_at,
            };
            member = self.next[index];
        }
    }

    /// What the batch adds to the counters of its topics, sorted by topic.
    pub(super) fn counters(&self) -> BTreeMap<&'a str, Counters> {
        let mut topics: BTreeMap<&str, Counters> = BTreeMap::new();
        for (event, outcome) in self.batch.events.iter().zip(&self.outcomes) {
            topics.entry(&event.key.topic).or_default().add(outcome.verdict);
        }
        topics
    }

    pub(super) fn into_outcomes(self) -> Vec<Outcome> {
        self.outcomes
    }
}

impl Counters {
    /// Counts one judged event.
    pub fn add(&mut self, verdict: Verdict) {
        self.received += 1;
        match verdict {
            Verdict::Accepted => self.unique_processed += 1,
            Verdict::Duplicate => self.duplicate_dropped += 1,
            Verdict::Conflict(_) => {
                self.duplicate_dropped += 1;
                self.conflicts += 1;
            }
        }
    }
}

fn compare(event: &NewEvent, first: &NewEvent) -> Verdict {
    verdict(event, first.timestamp, &first.source, first.payload.as_str())
}

fn compare_stored(event: &NewEvent, original: &Original) -> Verdict {
    verdict(event, original.timestamp, &original.source, &original.payload)
}

fn verdict(event: &NewEvent, timestamp: Option<Timestamp>, source: &str, payload: &str) -> Verdict {
    let difference = Difference {
        timestamp: matches!((event.timestamp, timestamp), (Some(a), Some(b)) if a != b),
        source: &*event.source != source,
        payload: !json::same_value(event.payload.as_str(), payload),
    };
    match difference == Difference::default() {
        true => Verdict::Duplicate,
        false => Verdict::Conflict(difference),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{Name, Payload};
    use uuid::Uuid;

    fn event(event_id: &str, payload: &str) -> NewEvent {
        let name = |text: &str| Name::new("name", text.to_owned()).expect("valid");
        NewEvent {
            key: EventKey { topic: name("t"), event_id: name(event_id) },
            timestamp: None,
            source: name("s"),
            payload: Payload::new("payload", payload.to_owned()).expect("valid"),
        }
    }

    #[test]
    fn every_event_is_judged_alone_also_against_its_neighbours() {
        let conflict = Verdict::Conflict(Difference { payload: true, ..Difference::default() });
        let at = |micros| Timestamp::from_micros(micros).expect("valid");
        let batch = Batch {
            id: Uuid::nil(),
            lane: 0,
            received_at: at(9),
            events: vec![
                event("a", "{}"),
                event("b", "{}"),
                event("b", "{\"x\":1}"),
                event("a", "{\"x\":1}"),
                event("a", " {} "),
            ],
        };
        let mut judgement = Judgement::new(&batch);
        assert_eq!(judgement.new_events().collect::<Vec<_>>(), [0, 1]);
        judgement.found(
            0,
            &Original {
                timestamp: None,
                source: "s".into(),
                payload: "{\"x\":1.0}".into(),
                received_at: at(1),
            },
        );
        assert_eq!(judgement.new_events().collect::<Vec<_>>(), [1]);
        assert_eq!(
            judgement.counters()["t"],
            Counters { received: 5, unique_processed: 1, duplicate_dropped: 4, conflicts: 3 }
        );
        let outcomes = judgement.into_outcomes();
        assert_eq!(
            outcomes.iter().map(|outcome| outcome.verdict).collect::<Vec<_>>(),
            [conflict, Verdict::Accepted, conflict, Verdict::Duplicate, conflict]
        );
        assert_eq!(
            outcomes.iter().map(|outcome| outcome.first_received_at).collect::<Vec<_>>(),
            [at(1), at(9), at(9), at(1), at(1)]
        );
    }
}
