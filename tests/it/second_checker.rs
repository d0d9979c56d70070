//! The rules of the torture test's second checker, on synthetic histories: a valid one has no
//! violations, and each invalid one has the expected violation.

use std::{collections::BTreeSet, sync::Arc};
use testkit::judge::{
    Rule::{self, *},
    history::{
        Attempt, Content, Counts, Feed, History, Key, Moment, Outcome, Row, Sample, Seen, Sight,
        Time, Walk, Way,
    },
    json, judge,
};

const FIRST: Time = 1_700_000_000_000_000;

fn content(source: &str, timestamp: Option<Time>, payload: &str) -> Content {
    Content { source: source.into(), timestamp, payload: payload.into(), is_struct: false }
}

fn key(event_id: &str) -> Key {
    let contents = vec![
        content("s", Some(5), r#"{"n":1,"t":"é"}"#),
        // Equal by value.
        content("s", Some(5), r#"{ "t" : "\u00e9", "n":2, "n":10e-1 }"#),
        content("s", None, r#"{"n":1,"t":"é"}"#),
        // Different values.
        content("s", Some(5), r#"{"n":2,"t":"é"}"#),
        content("x", Some(6), r#"{"n":1,"t":"é"}"#),
    ];
    Key { topic: "a".into(), event_id: event_id.into(), contents }
}

fn attempt(
    key: usize,
    content: usize,
    (begin, end): (Moment, Moment),
    outcome: Outcome,
) -> Attempt {
    Attempt { key, content, way: Way::Unary, service: 0, begin, end, outcome }
}

fn accepted() -> Outcome {
    Outcome::Accepted { first: FIRST }
}

fn duplicate() -> Outcome {
    Outcome::Duplicate { first: FIRST }
}

fn conflict(fields: &[&str]) -> Outcome {
    let fields = fields.iter().map(|field| (*field).to_owned()).collect();
    Outcome::Conflict { first: FIRST, fields }
}

fn lost() -> Outcome {
    Outcome::Lost("the connection broke".to_owned())
}

fn row(key: usize, seq: i64, content: &Content) -> Row {
    Row {
        key,
        lane: 0,
        seq,
        source: Arc::clone(&content.source),
        timestamp: content.timestamp,
        payload: Arc::clone(&content.payload),
        received_at: FIRST,
    }
}

fn seen(row: &Row) -> Seen {
    Seen {
        source: Arc::clone(&row.source),
        timestamp: row.timestamp.unwrap_or(FIRST),
        payload: Arc::clone(&row.payload),
        received_at: row.received_at,
    }
}

fn counts(unique: i64, duplicate: i64, conflicts: i64) -> Counts {
    Counts { received: unique + duplicate, unique, duplicate, conflicts }
}

fn sample(at: Moment, counts: Counts) -> Sample {
    Sample { begin: at, end: at + 5, total: counts, topics: [("a".into(), counts)].into() }
}

/// Two keys. The first one is accepted, duplicated and contradicted; the response for the second
/// one is lost, and its retry shows that it was stored.
fn good() -> History {
    let keys = vec![key("1"), key("2")];
    let rows = vec![row(0, 1, &keys[0].contents[0]), row(1, 2, &keys[1].contents[0])];
    let attempts = vec![
        attempt(0, 0, (100, 200), accepted()),
        // At the same time, and a moment later.
        attempt(0, 1, (150, 250), duplicate()),
        attempt(0, 3, (300, 400), conflict(&["payload"])),
        attempt(0, 4, (300, 400), conflict(&["timestamp", "source"])),
        attempt(1, 0, (500, 600), lost()),
        attempt(1, 2, (700, 800), duplicate()),
        attempt(1, 3, (700, 800), Outcome::NotDone),
    ];
    let sight = |by, key, at: Moment, row: Option<&Row>| Sight {
        by,
        key,
        begin: at,
        end: at + 10,
        seen: row.map(seen),
    };
    let sights = vec![
        sight("look-up", 0, 50, None),
        sight("look-up", 0, 210, Some(&rows[0])),
        sight("look-up", 1, 520, None),
        sight("look-up", 1, 810, Some(&rows[1])),
    ];
    let walks = vec![Walk { oldest_first: true, begin: 900, events: vec![(0, FIRST), (1, FIRST)] }];
    let feeds = vec![Feed { deliveries: vec![0, 1], resumed: 1, caught_up: true }];
    let samples = vec![sample(10, counts(0, 0, 0)), sample(450, counts(1, 3, 2))];
    let last = sample(900, counts(2, 4, 2));
    History { keys, attempts, sights, walks, feeds, samples, last, rows, faults: Vec::new() }
}

fn broken(change: impl FnOnce(&mut History)) -> BTreeSet<Rule> {
    let mut history = good();
    change(&mut history);
    judge(&history).into_iter().map(|violation| violation.rule).collect()
}

fn breaks(rule: Rule, change: impl FnOnce(&mut History)) {
    let rules = broken(change);
    assert!(rules.contains(&rule), "{rule} is not among {rules:?}");
}

/// Asserts a violation of this rule and of no other.
fn breaks_only(rule: Rule, change: impl FnOnce(&mut History)) {
    assert_eq!(broken(change), [rule].into());
}

fn holds(change: impl FnOnce(&mut History)) {
    assert_eq!(broken(change), [].into());
}

#[test]
fn valid_history_has_no_violations() {
    let violations = judge(&good());
    assert!(violations.is_empty(), "{violations:?}");
}

#[test]
fn key_is_accepted_once() {
    breaks(Once, |history| history.attempts[1].outcome = accepted());
}

#[test]
fn acknowledged_events_are_stored_once_bytewise() {
    breaks(Stored, |history| drop(history.rows.remove(0)));
    breaks(Stored, |history| history.rows.push(history.rows[0].clone()));
    // Equal by value is not enough,
    breaks(Stored, |history| history.rows[0].payload = history.keys[0].contents[1].payload.clone());
    // nor is the content of another attempt with another verdict.
    breaks(Stored, |history| history.rows[0].source = "x".into());
    breaks(Stored, |history| history.rows[1].timestamp = None);
    // Nothing is stored that was certainly not done.
    breaks(Stored, |history| history.attempts[4].outcome = Outcome::NotDone);
    breaks(Stored, |history| history.rows[0].payload = "{".into());
}

#[test]
fn struct_is_stored_with_its_value() {
    let as_struct = |history: &mut History| history.keys[0].contents[0].is_struct = true;
    let store = |history: &mut History, payload: &str| {
        history.rows[0].payload = payload.into();
        let seen = seen(&history.rows[0]);
        history.sights[1].seen = Some(seen);
    };
    holds(|history| {
        as_struct(history);
        store(history, r#"{"t":"é","n":1.0}"#);
    });
    breaks(Stored, |history| {
        as_struct(history);
        store(history, r#"{"t":"é","n":2}"#);
    });
}

#[test]
fn the_first_write_wins_at_one_instant() {
    // A duplicate returns before its original is sent.
    breaks_only(Order, |history| {
        (history.attempts[1].begin, history.attempts[1].end) = (20, 90);
    });
    // So does one of a lost attempt.
    breaks_only(Order, |history| {
        (history.attempts[5].begin, history.attempts[5].end) = (450, 490);
    });
    // Read before it was sent, or missing after it was acknowledged or read.
    breaks_only(Order, |history| (history.sights[1].begin, history.sights[1].end) = (20, 30));
    breaks_only(Order, |history| (history.sights[0].begin, history.sights[0].end) = (260, 270));
    breaks_only(Order, |history| {
        let absent = Sight { begin: 815, end: 830, seen: None, ..history.sights[3].clone() };
        history.sights[3].end = 812;
        history.sights.push(absent);
    });
    // Of overlapping attempts, any may have been first.
    holds(|history| (history.sights[0].begin, history.sights[0].end) = (190, 500));
    holds(|history| history.attempts[4].end = 2_000);
    // One of two lost attempts is consistent.
    holds(|history| {
        let lost = attempt(1, 0, (790, 900), lost());
        history.attempts.insert(4, lost);
    });
}

#[test]
fn verdicts_match_the_history() {
    breaks(Verdict, |history| history.attempts[2].outcome = duplicate());
    breaks(Verdict, |history| history.attempts[1].outcome = conflict(&["payload"]));
    breaks(Verdict, |history| history.attempts[1].outcome = conflict(&[]));
    breaks_only(Verdict, |history| history.attempts[3].outcome = conflict(&["source"]));
    breaks_only(Verdict, |history| {
        history.attempts[3].outcome = conflict(&["payload", "source", "timestamp"]);
    });
    breaks_only(Verdict, |history| {
        history.attempts[1].outcome = Outcome::Duplicate { first: FIRST + 1 };
    });
    breaks_only(Verdict, |history| {
        history.attempts[0].outcome = Outcome::Accepted { first: FIRST - 1 };
    });
    breaks_only(Answer, |history| {
        history.attempts[6].outcome = Outcome::Wrong("INTERNAL".to_owned());
    });
}

#[test]
fn counters_count_each_event_once() {
    let set = |counts: Counts| move |history: &mut History| history.last = sample(900, counts);
    // Each counter off by one.
    breaks_only(Counters, set(counts(2, 5, 2)));
    breaks_only(Counters, set(counts(2, 3, 2)));
    breaks_only(Counters, set(counts(3, 3, 2)));
    breaks_only(Counters, set(counts(1, 5, 2)));
    breaks_only(Counters, set(counts(2, 4, 1)));
    breaks_only(Counters, set(counts(2, 4, 3)));
    breaks_only(Counters, set(Counts { received: 7, ..counts(2, 4, 2) }));
    breaks_only(Counters, |history| history.last.total = counts(2, 4, 3));
    // While requests are in progress.
    breaks_only(Counters, |history| history.samples[1] = sample(450, counts(1, 2, 2)));
    breaks_only(Counters, |history| history.samples[1] = sample(450, counts(1, 4, 2)));
    breaks_only(Counters, |history| history.samples[0] = sample(10, counts(1, 0, 0)));
    breaks_only(Counters, |history| {
        history.samples.push(sample(460, counts(1, 3, 2)));
        history.samples[1] = sample(350, counts(1, 3, 2));
        history.samples[2] = sample(380, counts(1, 1, 0));
    });
    breaks_only(Counters, |history| {
        history.last.topics.insert("b".into(), Counts::default());
    });
}

#[test]
fn lost_requests_may_count_once() {
    let lose = |history: &mut History| history.attempts[2].outcome = lost();
    for may_be in [counts(2, 3, 1), counts(2, 4, 2)] {
        holds(|history| {
            lose(history);
            drop(history.samples.pop());
            history.last = sample(900, may_be);
        });
    }
    // Counted with the wrong verdict.
    breaks_only(Counters, |history| {
        lose(history);
        drop(history.samples.pop());
        history.last = sample(900, counts(2, 4, 1));
    });
}

#[test]
fn subscribers_get_each_event_once_and_in_order() {
    breaks_only(Feed, |history| history.feeds[0].deliveries = vec![0]);
    breaks_only(Feed, |history| history.feeds[0].deliveries = vec![0, 1, 1]);
    breaks_only(Feed, |history| history.feeds[0].deliveries = vec![1, 0]);
    breaks_only(Feed, |history| history.feeds[0].caught_up = false);
}

#[test]
fn returned_events_match_stored_events() {
    let change = |change: fn(&mut Seen)| {
        move |history: &mut History| change(history.sights[1].seen.as_mut().expect("an event"))
    };
    breaks_only(Reading, change(|seen| seen.source = "x".into()));
    breaks_only(Reading, change(|seen| seen.timestamp += 1));
    breaks_only(Reading, change(|seen| seen.received_at += 1));
    breaks_only(Reading, change(|seen| seen.payload = r#"{"n":1, "t":"é"}"#.into()));
    breaks_only(Reading, |history| history.walks[0].events.push((0, FIRST)));
    breaks_only(Reading, |history| history.walks[0].events[1].1 -= 1);
}

#[test]
fn other_errors_are_reported() {
    breaks_only(Answer, |history| history.faults.push("verify ended with 1".to_owned()));
}

#[test]
fn values_are_compared_exactly() {
    let same = |one: &str, other: &str| {
        let (one, other) = (json::parse(one), json::parse(other));
        assert!(one.is_some() && other.is_some());
        one == other
    };
    for (one, other) in [
        ("1", "1.0"),
        ("1", "10e-1"),
        ("0", "-0.00e7"),
        ("123456789012345678901234567890", "1.2345678901234567890123456789E+29"),
        (r#""\ud83d\ude00\/\u00E9""#, "\"😀/é\""),
        (r#"{"a":1,"b":[]}"#, " {\n\"b\" : [ ] , \"a\":2,\"\\u0061\":1 }\t"),
    ] {
        assert!(same(one, other), "{one} {other}");
    }
    for (one, other) in [
        ("9007199254740992", "9007199254740993"),
        ("0.1", "0.1000000000000000055511151231257827"),
        ("1", "\"1\""),
        ("1", "-1"),
        ("[1,2]", "[2,1]"),
        ("[]", "{}"),
        ("{\"a\":null}", "{}"),
        ("\"é\"", "\"e\u{301}\""),
    ] {
        assert!(!same(one, other), "{one} {other}");
    }
    for text in ["", "01", "1.", "+1", "[1,]", "{\"a\"}", "\"\n\"", r#""\ud800""#, "nul", "1 2"] {
        assert_eq!(json::parse(text), None, "{text}");
    }
}
