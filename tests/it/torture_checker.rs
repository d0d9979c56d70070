//! The checker of the torture test, on synthetic histories: valid ones have no violations, and
//! invalid ones have the expected violation.

use std::{collections::BTreeSet, time::Duration};
use testkit::{
    checker::{
        self,
        Rule::{self, *},
    },
    history::{
        Attempt, Content, Counters, Delivery, History, Key, Listing, Moment,
        Outcome::{self, Accepted, Conflict, Duplicate, Failed, Unknown},
        Reader, Row, Sample, Settled,
    },
};
use tonic::Code;

fn at(millis: u64) -> Moment {
    Duration::from_millis(millis)
}

fn key(name: &str) -> Key {
    let (topic, event_id) = name.split_once('/').expect("topic/id");
    Key { topic: topic.into(), event_id: event_id.into() }
}

/// Attempts, 100 ms apart, each answered within 10 ms.
fn attempts(sent: &[(&str, Content, Outcome)]) -> Vec<Attempt> {
    let attempt = |(number, &(name, content, outcome)): (u64, &(&str, Content, Outcome))| Attempt {
        producer: 0,
        instance: 0,
        key: key(name),
        content,
        invoked: at(100 * number),
        returned: at(100 * number + 10),
        outcome,
    };
    (1..).zip(sent).map(attempt).collect()
}

/// The history of a correct service for these attempts, in which the unknown ones in `stored` were
/// stored: a subscriber gets everything at once, a listing has it at the end, and counters are read
/// after each attempt. Topic a is in lane 0, others in lane 1.
fn history_with(sent: &[(&str, Content, Outcome)], stored: &[&str]) -> History {
    let mut history = History { attempts: attempts(sent), ..History::default() };
    let mut reader = Reader { caught_up: true, ..Reader::default() };
    let settled = &mut history.settled;
    settled.heads.extend([(0, 0), (1, 0)]);
    for attempt in &history.attempts {
        let is_stored = stored.iter().any(|name| key(name) == attempt.key);
        let one = match attempt.outcome {
            Unknown(_) if is_stored => Accepted,
            other => other,
        };
        let topic = settled.topics.entry(attempt.key.topic.clone()).or_default();
        for counters in [&mut settled.totals, topic] {
            count(counters, one);
        }
        if one == Accepted {
            let lane = i16::from(&*attempt.key.topic != "a");
            let seq = settled.heads.get_mut(&lane).expect("a lane");
            *seq += 1;
            let Attempt { key, content, .. } = attempt.clone();
            settled.rows.push(Row { key: key.clone(), content, lane, seq: *seq });
            reader.deliveries.push(Delivery { key, content, at: attempt.returned });
        }
        history.samples.push(Sample {
            invoked: attempt.returned + at(10),
            returned: attempt.returned + at(20),
            instance: 0,
            totals: settled.totals,
            topics: settled.topics.clone(),
        });
    }
    let events = reader.deliveries.clone();
    let (invoked, returned) = (at(90_000), at(91_000));
    let events = events.into_iter().map(|event| Delivery { at: returned, ..event }).collect();
    history.listings.push(Listing { invoked, returned, complete: true, events });
    history.readers.push(reader);
    history
}

fn count(counters: &mut Counters, outcome: Outcome) {
    let [unique, repeated, conflict] = match outcome {
        Accepted => [1, 0, 0],
        Duplicate => [0, 1, 0],
        Conflict => [0, 1, 1],
        Failed(_) | Unknown(_) => [0; 3],
    };
    counters.received += unique + repeated;
    counters.unique_processed += unique;
    counters.duplicate_dropped += repeated;
    counters.conflicts += conflict;
}

/// A round with every kind of entry.
fn good() -> History {
    let sent = [
        ("a/1", 1, Accepted),
        ("a/1", 1, Duplicate),
        ("a/1", 2, Conflict),
        ("b/1", 1, Accepted),
        ("a/2", 1, Unknown(Code::Unavailable)),
        ("a/2", 1, Duplicate),
        ("a/3", 1, Failed(Code::ResourceExhausted)),
        ("a/3", 1, Accepted),
        ("a/4", 1, Unknown(Code::Unavailable)),
        ("b/2", 1, Failed(Code::InvalidArgument)),
        ("b/3", 1, Accepted),
    ];
    history_with(&sent, &["a/2"])
}

/// Every observer has this content of the only event.
fn holds(history: &mut History, content: Content) {
    history.settled.rows[0].content = content;
    history.readers[0].deliveries[0].content = content;
    history.listings[0].events[0].content = content;
}

/// The rules that a history violates.
fn broken(history: &History) -> Vec<Rule> {
    let rules: BTreeSet<Rule> =
        checker::check(history).into_iter().map(|violation| violation.rule).collect();
    rules.into_iter().collect()
}

/// The rules that the valid history violates after a change.
#[track_caller]
fn breaks(rules: &[Rule], change: impl FnOnce(&mut History)) {
    let mut history = good();
    change(&mut history);
    assert_eq!(broken(&history), rules, "{:#?}", checker::check(&history));
}

#[test]
fn valid_history_has_no_violations() {
    assert_eq!(checker::check(&good()), []);
    assert_eq!(checker::check(&History::default()), []);
}

#[test]
fn lost_write_is_detected() {
    // The first response was lost; the second one reports a duplicate.
    let lost = [("a/1", 1, Unknown(Code::Unavailable)), ("a/1", 1, Duplicate)];
    assert_eq!(broken(&history_with(&lost, &[])), [LostWrite, Counters]);
    // An accepted event that is not stored is not counted either, or counted and not stored.
    breaks(&[LostWrite, Counters], |history| {
        history.attempts.extend(attempts(&[("b/9", 1, Accepted)]));
    });
    // Stored, but with other content.
    breaks(&[LostWrite, Cursor], |history| history.settled.rows[1].content = 7);
    // Stored without a write that explains it: a duplicate alone does not.
    let sent = [("a/1", 2, Unknown(Code::Unavailable)), ("a/1", 1, Duplicate)];
    let mut history = history_with(&sent, &["a/1"]);
    holds(&mut history, 1);
    assert_eq!(broken(&history), [LostWrite, Verdict]);
    // Duplicates are equal, conflicts are not.
    breaks(&[LostWrite], |history| history.attempts[1].content = 2);
    breaks(&[LostWrite], |history| history.attempts[2].content = 1);
}

#[test]
fn phantom_is_detected() {
    let failed = Delivery { key: key("b/2"), content: 1, at: at(9_000) };
    breaks(&[Phantom], |history| history.readers[0].deliveries.push(failed.clone()));
    breaks(&[Phantom], |history| history.listings[0].events.push(failed));
    let invented = Delivery { key: key("b/77"), content: 1, at: at(9_000) };
    breaks(&[Phantom], |history| history.readers[0].deliveries.push(invented));
    breaks(&[Phantom, Verdict], |history| history.readers[0].deliveries[0].at = at(99));
    breaks(&[Phantom, Counters, Cursor], |history| {
        let row = Row { key: key("b/2"), content: 1, lane: 1, seq: 3 };
        history.settled.rows.push(row);
        history.settled.heads.insert(1, 3);
    });
}

#[test]
fn duplicate_is_detected() {
    breaks(&[Rule::Duplicate], |history| {
        let again = history.readers[0].deliveries[0].clone();
        history.readers[0].deliveries.push(again);
    });
    breaks(&[Rule::Duplicate], |history| {
        let again = history.listings[0].events[0].clone();
        history.listings[0].events.push(again);
    });
    breaks(&[Rule::Duplicate, Counters, Cursor], |history| {
        let again = Row { lane: 1, seq: 3, ..history.settled.rows[0].clone() };
        history.settled.rows.push(again);
        history.settled.heads.insert(1, 3);
    });
    // One number is used twice, and the next one is missing.
    breaks(&[Rule::Duplicate, Cursor], |history| {
        let end = history.settled.rows.iter_mut().find(|row| row.key == key("b/3")).expect("row");
        end.seq = 1;
    });
}

#[test]
fn wrong_verdict_is_detected() {
    // Sent once. Unknown outcomes keep the counters plausible.
    let sent = [
        ("b/1", 1, Unknown(Code::Unavailable)),
        ("b/2", 1, Unknown(Code::Unavailable)),
        ("b/3", 1, Duplicate),
    ];
    let mut history = history_with(&sent, &["b/1"]);
    history.settled.rows[0].key = key("b/3");
    history.readers[0].deliveries[0] = Delivery { key: key("b/3"), content: 1, at: at(400) };
    history.listings[0].events[0].key = key("b/3");
    assert_eq!(broken(&history), [LostWrite, Verdict]);

    // The original was sent after its duplicate was acknowledged.
    let sent = [("a/1", 1, Duplicate), ("a/1", 1, Accepted)];
    assert_eq!(broken(&history_with(&sent, &[])), [Verdict, Counters]);
    // The earlier event had other content.
    let sent = [
        ("a/1", 2, Unknown(Code::Unavailable)),
        ("a/1", 1, Duplicate),
        ("a/1", 1, Unknown(Code::Unavailable)),
    ];
    let mut history = history_with(&sent[..2], &["a/1"]);
    history.attempts = attempts(&sent);
    holds(&mut history, 1);
    assert_eq!(broken(&history), [Verdict]);
    // Known before it was sent: to a producer, or to a subscriber.
    let sent =
        [("b/1", 1, Unknown(Code::Unavailable)), ("b/1", 1, Duplicate), ("b/1", 1, Accepted)];
    assert_eq!(broken(&history_with(&sent, &[])), [Verdict, Counters]);
    let mut history = history_with(&[sent[0], sent[2]], &[]);
    assert_eq!(checker::check(&history), []);
    history.readers[0].deliveries[0].at = at(150);
    assert_eq!(broken(&history), [Verdict]);
    // Two producers are told that theirs was new.
    breaks(&[Verdict, Counters], |history| history.attempts[1].outcome = Accepted);
}

#[test]
fn wrong_counters_are_detected() {
    // They do not add up, in total or over topics.
    breaks(&[Counters], |history| history.samples[4].totals.received += 1);
    breaks(&[Counters], |history| {
        let topic = history.samples[4].topics.get_mut("a").expect("topic");
        topic.received += 1;
        topic.unique_processed += 1;
    });
    // A stale response, long after it was true.
    breaks(&[Counters], |history| {
        let (totals, topics) = (history.samples[3].totals, history.samples[3].topics.clone());
        let late = history.samples.last_mut().expect("a sample");
        (late.totals, late.topics) = (totals, topics);
    });
    // Counters decrease: the effect of an unknown attempt disappears.
    breaks(&[Counters], |history| {
        let (invoked, returned) = (at(550), at(560));
        let late = Sample { invoked, returned, instance: 1, ..history.samples[3].clone() };
        history.samples.push(late);
    });
    // Counted before it is sent.
    breaks(&[Counters], |history| {
        let after = history.samples[3].clone();
        history.samples[0].totals = after.totals;
        history.samples[0].topics = after.topics;
    });
    // The final counters match neither the rows nor the responses.
    let changes: [fn(&mut Counters); 3] = [
        |last| count(last, Accepted),
        |last| {
            (last.received, last.duplicate_dropped) =
                (last.received - 1, last.duplicate_dropped - 1)
        },
        |last| last.conflicts = 0,
    ];
    for change in changes {
        breaks(&[Counters], |history| {
            change(&mut history.settled.totals);
            change(history.settled.topics.get_mut("a").expect("topic"));
        });
    }
    breaks(&[Counters], |history| history.settled.differences.push("of topic a".into()));
}

#[test]
fn key_is_unique_once() {
    // Whichever of two attempts stored it, there is one event.
    let sent = [("a/1", 1, Unknown(Code::Unavailable)), ("a/1", 1, Unknown(Code::Unavailable))];
    let mut history = history_with(&sent[..1], &["a/1"]);
    history.attempts = attempts(&sent);
    assert_eq!(checker::check(&history), []);
    history.samples[0].invoked = at(300);
    history.samples[0].returned = at(310);
    let twice = &mut history.samples[0];
    for counters in [&mut twice.totals, twice.topics.get_mut("a").expect("topic")] {
        count(counters, Accepted);
    }
    assert_eq!(broken(&history), [Counters, Cursor]);
    // A subscriber had it, and it was not counted.
    let mut history = history_with(&sent[..1], &["a/1"]);
    let blind = &mut history.samples[0];
    (blind.totals, blind.topics) = Default::default();
    history.readers[0].deliveries[0].at = at(115);
    assert_eq!(broken(&history), [Counters]);
}

#[test]
fn without_unknown_outcomes_counters_are_exact() {
    let sent = [("a/1", 1, Accepted), ("a/1", 1, Duplicate), ("a/1", 2, Conflict)];
    let mut history = history_with(&sent, &[]);
    assert_eq!(checker::check(&history), []);
    let settled = &mut history.settled;
    for last in [&mut settled.totals, settled.topics.get_mut("a").expect("topic")] {
        last.received += 1;
        last.duplicate_dropped += 1;
    }
    assert_eq!(broken(&history), [Counters]);
}

#[test]
fn skipped_events_are_detected() {
    // Subscribers: missing events in between or at the end, wrong order, or wrong content.
    breaks(&[Cursor], |history| drop(history.readers[0].deliveries.remove(0)));
    breaks(&[Cursor], |history| drop(history.readers[0].deliveries.pop()));
    breaks(&[Cursor], |history| {
        let deliveries = &mut history.readers[0].deliveries;
        let last = deliveries.len() - 1;
        deliveries.iter_mut().for_each(|delivery| delivery.at = at(9_000));
        deliveries.swap(1, last);
    });
    breaks(&[Cursor], |history| history.readers[0].deliveries[0].content = 2);
    // A delivered event disappeared.
    breaks(&[Counters, Cursor], |history| {
        let undone = Delivery { key: key("a/4"), content: 1, at: at(9_000) };
        history.readers[0].deliveries.push(undone);
    });
    // Listings: an event from before is missing, or the order is wrong.
    breaks(&[Cursor], |history| drop(history.listings[0].events.remove(0)));
    breaks(&[Cursor], |history| drop(history.listings[0].events.pop()));
    breaks(&[Cursor], |history| history.listings[0].events.reverse());
    // Counted before, and not listed.
    let mut history = history_with(&[("a/1", 1, Unknown(Code::Unavailable))], &["a/1"]);
    history.listings[0].events.clear();
    assert_eq!(broken(&history), [Cursor]);
}

#[test]
fn lanes_may_interleave_and_listings_may_miss_concurrent_events() {
    breaks(&[], |history| {
        history.readers[0].deliveries.iter_mut().for_each(|delivery| delivery.at = at(9_000));
        history.readers[0].deliveries.sort_by_key(|delivery| delivery.key.topic.clone());
    });
    breaks(&[], |history| {
        let listing = &mut history.listings[0];
        listing.invoked = at(350);
        listing.events.retain(|event| event.key != key("a/2") && event.key != key("b/3"));
    });
    breaks(&[], |history| {
        history.listings[0].complete = false;
        history.listings[0].events.truncate(2);
    });
}

#[test]
fn liveness_and_visibility_violations_are_detected() {
    breaks(&[Liveness], |history| history.settled.stuck.push("instance 1".into()));
    breaks(&[Liveness], |history| history.readers[0].caught_up = false);
    breaks(&[Hygiene], |history| history.settled.dirt.push("a panic".into()));
}

#[test]
fn late_recovery_is_detected() {
    breaks(&[Liveness], |history| history.attempts[10].returned = at(61_000));
    breaks(&[], |history| {
        history.attempts[10].returned = at(61_000);
        history.settled.healed = at(2_000);
    });
}

#[test]
fn empty_history_is_detected() {
    let enough = checker::Enough { producers: 1, readers: 1, listings: 1, samples: 11 };
    let lacks = |history: &History| checker::check_extent(history, enough).len();
    assert_eq!(lacks(&good()), 0);
    assert_eq!(lacks(&History::default()), 4);
    let mut history = good();
    history.listings[0].complete = false;
    history.samples.pop();
    assert_eq!(lacks(&history), 2);
}

#[test]
fn violations_are_listed_up_to_a_limit_and_counted() {
    let settled = Settled { stuck: vec!["still".into(); 30], ..Settled::default() };
    let history = History { settled, ..History::default() };
    let told = checker::check(&history);
    assert_eq!(told.len(), 21);
    assert_eq!(told[20].to_string(), "C7 liveness: and 10 more");
}
