//! Deduplication of a batch, for all backends: an event is compared with earlier events of the
//! batch and with the stored event of its key.

use std::{collections::BTreeMap, ops::Range};

use xxhash_rust::xxh3::xxh3_64;

use super::{Batch, Counters, Error};
use crate::{
    event::{Difference, EventKey, NewEvent, Outcome, Timestamp, Verdict},
    json::Document,
    limits::{INLINE_COMPARED_BYTES, MAX_COMPARED_BYTES},
};

/// Bytes of payloads of deferred comparisons, after which these run before more are added. Stored
/// payloads may be much larger than those sent, so only a few are in memory at a time.
const MAX_DEFERRED_BYTES: usize = 2 * MAX_COMPARED_BYTES;

/// Deduplication of one batch. Events are new unless an original is [`found`](Self::found).
pub(super) struct Judgement<'a> {
    batch: &'a Batch,
    /// Indexes of all events: grouped by topic, sorted by event id, and by arrival within a key.
    by_key: Vec<usize>,
    /// For each event by arrival: its verdict, and the stored event with its key, if there is one.
    verdicts: Vec<(Verdict, Option<Found>)>,
    /// Bytes of stored payloads to compare, beyond those sent with the same keys.
    compared: usize,
    /// The same for each key, with the index of its first event.
    excess: Vec<(usize, usize)>,
}

/// Sort key of an event: hashes and prefixes that are cheap to compare and almost always decide.
struct Place {
    topic: u64,
    event_id: u64,
    index: usize,
}

impl Place {
    fn of((index, event): (usize, &NewEvent)) -> Self {
        let EventKey { topic, event_id } = &event.key;
        let mut first = [0; 8];
        first.iter_mut().zip(event_id.bytes()).for_each(|(first, byte)| *first = byte);
        Self { topic: xxh3_64(topic.as_bytes()), event_id: u64::from_be_bytes(first), index }
    }
}

/// The stored event that an event was compared with.
#[derive(Debug, Clone, Copy)]
struct Found {
    received_at: Timestamp,
    /// Bytes of its payload beyond those sent, if they are charged to this event.
    compared: usize,
}

/// The stored event of a key, as far as it is compared.
pub(super) struct Original {
    pub(super) timestamp: Option<Timestamp>,
    pub(super) source: String,
    pub(super) payload: String,
    pub(super) received_at: Timestamp,
}

impl<'a> Judgement<'a> {
    pub(super) fn new(batch: &'a Batch) -> Self {
        let events = &batch.events;
        let key = |place: &Place| &events[place.index].key;
        let mut places: Vec<Place> = (0..).zip(events).map(Place::of).collect();
        // Sorting brings duplicates together, and rows that are near each other in the index.
        places.sort_unstable_by(|a, b| {
            let marks = (a.topic, a.event_id).cmp(&(b.topic, b.event_id));
            marks.then_with(|| key(a).cmp(key(b))).then(a.index.cmp(&b.index))
        });
        let mut verdicts = vec![(Verdict::Accepted, None); events.len()];
        let is_same = |a: &Place, b: &Place| a.event_id == b.event_id && key(a) == key(b);
        for same in places.chunk_by(is_same) {
            let first = Comparison::with_first(&events[same[0].index]);
            for repeat in &same[1..] {
                verdicts[repeat.index].0 = first.verdict(&events[repeat.index]);
            }
        }
        let by_key = places.into_iter().map(|place| place.index).collect();
        Self { batch, by_key, verdicts, compared: 0, excess: Vec::new() }
    }

    /// Places in [`Self::by_key`] of the first event of each new key.
    pub(super) fn new_places(&self) -> impl Iterator<Item = usize> {
        (0..self.by_key.len())
            .filter(|&place| matches!(self.verdicts[self.by_key[place]].0, Verdict::Accepted))
    }

    /// Batch indexes of the new events, by key.
    pub(super) fn new_events(&self) -> impl Iterator<Item = usize> {
        self.new_places().map(|place| self.by_key[place])
    }

    /// Places of the new events, by arrival.
    pub(super) fn new_places_by_arrival(&self) -> Vec<usize> {
        let mut places: Vec<usize> = self.new_places().collect();
        places.sort_unstable_by_key(|&place| self.by_key[place]);
        places
    }

    /// The event at a place.
    pub(super) fn event(&self, place: usize) -> &'a NewEvent {
        &self.batch.events[self.by_key[place]]
    }

    /// Bytes to read in order to compare `original` with the events at `place` and of the same key.
    fn compared_bytes(&self, place: usize, original: &Original) -> usize {
        original.payload.len() + self.sent(self.same_key(place))
    }

    /// Compares the new event at `place`, and those with its key, with `original`. Fails if that
    /// exceeds the limit of a batch.
    pub(super) fn judge(&mut self, place: usize, original: &Original) -> Result<(), Error> {
        let same = self.same_key(place);
        let excess = self.add_excess(same.clone(), original)?;
        let comparison = Comparison::with_stored(original);
        for (number, &index) in self.by_key[same].iter().enumerate() {
            let compared = if number == 0 { excess } else { 0 };
            let found = Found { received_at: original.received_at, compared };
            self.verdicts[index] = (comparison.verdict(&self.batch.events[index]), Some(found));
        }
        Ok(())
    }

    /// The same, but puts off the comparison of large payloads. A batch that turns out to exceed the limit
    /// has compared none of them.
    pub(super) fn judge_or_defer(
        &mut self,
        place: usize,
        original: Original,
        deferred: &mut Deferred,
    ) -> Result<(), Error> {
        let bytes = self.compared_bytes(place, &original);
        if bytes <= INLINE_COMPARED_BYTES {
            return self.judge(place, &original);
        }
        deferred.repeats.push(self.repeated(place, original)?);
        deferred.bytes += bytes;
        Ok(())
    }

    fn repeated(&mut self, place: usize, original: Original) -> Result<Repeated, Error> {
        let same = self.same_key(place);
        let excess = self.add_excess(same.clone(), &original)?;
        let repeats = self.by_key[same].iter();
        let repeats = repeats.map(|&index| (index, self.batch.events[index].clone())).collect();
        Ok(Repeated { original, repeats, excess })
    }

    /// Records the verdicts of comparisons that were put off.
    pub(super) fn record(&mut self, compared: Vec<Verdicts>) {
        for Verdicts { of_each, received_at, mut excess } in compared {
            for (index, verdict) in of_each {
                let compared = std::mem::take(&mut excess);
                self.verdicts[index] = (verdict, Some(Found { received_at, compared }));
            }
        }
    }

    /// Places of all events with the key of the first one, at `place`.
    fn same_key(&self, place: usize) -> Range<usize> {
        let key = &self.event(place).key;
        let same = self.by_key[place..].iter();
        place..place + same.take_while(|&&index| self.batch.events[index].key == *key).count()
    }

    /// Bytes of the payloads that were sent.
    fn sent(&self, places: Range<usize>) -> usize {
        let events = self.by_key[places].iter().map(|&index| &self.batch.events[index]);
        events.map(|event| event.payload.as_str().len()).sum()
    }

    /// Adds the bytes of a stored payload beyond what was sent with its key.
    fn add_excess(&mut self, same: Range<usize>, original: &Original) -> Result<usize, Error> {
        let first = self.by_key[same.start];
        let excess = original.payload.len().saturating_sub(self.sent(same));
        if excess > 0 {
            self.compared += excess;
            self.excess.push((first, excess));
        }
        match self.compared > MAX_COMPARED_BYTES {
            true => Err(Error::TooMuch { excess: std::mem::take(&mut self.excess) }),
            false => Ok(excess),
        }
    }

    /// What the batch adds to the counters, by topic.
    pub(super) fn counters(&self) -> BTreeMap<&'a str, Counters> {
        let topic = |index: usize| &*self.batch.events[index].key.topic;
        let mut topics: BTreeMap<&str, Counters> = BTreeMap::new();
        for events in self.by_key.chunk_by(|&a, &b| topic(a) == topic(b)) {
            let counters = topics.entry(topic(events[0])).or_default();
            events.iter().for_each(|&index| counters.add(self.verdicts[index].0));
        }
        topics
    }

    /// The outcomes, by arrival, for new events received at this time.
    pub(super) fn into_outcomes(self, received_at: Timestamp) -> Vec<Outcome> {
        self.verdicts
            .into_iter()
            .map(|(verdict, found)| Outcome {
                verdict,
                first_received_at: found.map_or(received_at, |found| found.received_at),
                compared_bytes: found.map_or(0, |found| found.compared),
            })
            .collect()
    }
}

/// Comparisons of large payloads that are put off. Owned, so that they can run on another thread.
#[derive(Default)]
pub(super) struct Deferred {
    repeats: Vec<Repeated>,
    bytes: usize,
}

impl Deferred {
    pub(super) fn is_empty(&self) -> bool {
        self.repeats.is_empty()
    }

    /// Whether they hold so much memory that they should run before more are added.
    pub(super) fn is_large(&self) -> bool {
        self.bytes > MAX_DEFERRED_BYTES
    }

    /// Compares the payloads.
    pub(super) fn compare(self) -> Vec<Verdicts> {
        self.repeats.into_iter().map(Repeated::verdicts).collect()
    }
}

/// A stored event with the events of its key, by arrival.
struct Repeated {
    original: Original,
    repeats: Vec<(usize, NewEvent)>,
    excess: usize,
}

/// Verdicts on the events of one key.
pub(super) struct Verdicts {
    of_each: Vec<(usize, Verdict)>,
    received_at: Timestamp,
    /// Bytes of the stored payload beyond those sent.
    excess: usize,
}

impl Repeated {
    fn verdicts(self) -> Verdicts {
        let comparison = Comparison::with_stored(&self.original);
        let of_each = self.repeats.iter();
        let of_each = of_each.map(|(index, event)| (*index, comparison.verdict(event))).collect();
        Verdicts { of_each, received_at: self.original.received_at, excess: self.excess }
    }
}

impl Counters {
    /// Counts one event.
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

/// The event that the events of one key are compared with.
struct Comparison<'a> {
    timestamp: Option<Timestamp>,
    source: &'a str,
    payload: Document<'a>,
}

impl<'a> Comparison<'a> {
    fn with_first(event: &'a NewEvent) -> Self {
        let payload = Document::new(event.payload.as_str());
        Self { timestamp: event.timestamp, source: &event.source, payload }
    }

    fn with_stored(original: &'a Original) -> Self {
        let Original { timestamp, source, payload, .. } = original;
        Self { timestamp: *timestamp, source, payload: Document::new(payload) }
    }

    fn verdict(&self, event: &NewEvent) -> Verdict {
        let difference = Difference {
            timestamp: matches!((event.timestamp, self.timestamp), (Some(a), Some(b)) if a != b),
            source: &*event.source != self.source,
            payload: !self.payload.is_same_value(event.payload.as_str()),
        };
        match difference == Difference::default() {
            true => Verdict::Duplicate,
            false => Verdict::Conflict(difference),
        }
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
    fn events_are_compared_with_stored_and_earlier_ones() {
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
        let padding = " ".repeat(100);
        let original = Original {
            timestamp: None,
            source: "s".into(),
            payload: format!("{{\"x\":1.0{padding}}}"),
            received_at: at(1),
        };
        assert!(judgement.judge(0, &original).is_ok());
        assert_eq!(judgement.new_events().collect::<Vec<_>>(), [1]);
        assert_eq!(
            judgement.counters()["t"],
            Counters { received: 5, unique_processed: 1, duplicate_dropped: 4, conflicts: 3 }
        );
        let outcomes = judgement.into_outcomes(at(10));
        assert_eq!(
            outcomes.iter().map(|outcome| outcome.verdict).collect::<Vec<_>>(),
            [conflict, Verdict::Accepted, conflict, Verdict::Duplicate, conflict]
        );
        assert_eq!(
            outcomes.iter().map(|outcome| outcome.first_received_at).collect::<Vec<_>>(),
            [at(1), at(10), at(10), at(1), at(1)]
        );
        // The first event of a key is charged for the bytes that were not sent.
        assert_eq!(
            outcomes.iter().map(|outcome| outcome.compared_bytes).collect::<Vec<_>>(),
            [96, 0, 0, 0, 0]
        );
    }
}
