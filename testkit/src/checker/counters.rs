//! The responses of GetStats: at every time the counters are consistent, never decrease, and are
//! between the numbers of acknowledged and of sent events. At the end they match the rows.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use super::{
    Counters, Findings, History, Moment, Outcome, Rule,
    trails::{Trail, Trails},
};

const NAMES: [&str; 4] = ["received", "unique_processed", "duplicate_dropped", "conflicts"];

pub(super) fn check(history: &History, trails: &Trails<'_>, findings: &mut Findings) {
    let settled = &history.settled;
    let end = Answer { asked: Moment::MAX, got: Moment::MAX, instance: None };
    adds_up(&end, &settled.totals, &settled.topics, findings);
    for sample in &history.samples {
        let answer = Answer::of(sample.invoked, sample.returned, sample.instance);
        adds_up(&answer, &sample.totals, &sample.topics, findings);
    }
    for scope in scopes(history) {
        let sent = Sent::of(trails.iter().filter(|trail| scope.has(&trail.key.topic)));
        let mut answers: Vec<(Answer, Values)> = history
            .samples
            .iter()
            .map(|sample| {
                let answer = Answer::of(sample.invoked, sample.returned, sample.instance);
                (answer, scope.of(&sample.totals, &sample.topics))
            })
            .collect();
        answers.push((end, scope.of(&settled.totals, &settled.topics)));
        for (answer, values) in &answers {
            within_bounds(scope, answer, values, &sent, findings);
        }
        never_back(scope, &answers, findings);
        let unique = scope.of(&settled.totals, &settled.topics)[1];
        let rows = settled.rows.iter().filter(|row| scope.has(&row.key.topic)).count();
        if unique != rows as i64 {
            let what = format_args!("{scope}: {unique} unique in the end, but {rows} rows");
            findings.add(Rule::Counters, what);
        }
    }
    let (unique, heads) = (settled.totals.unique_processed, settled.heads.values().sum::<i64>());
    if unique != heads {
        let what =
            format_args!("all topics: {unique} unique in the end, but heads add up to {heads}");
        findings.add(Rule::Counters, what);
    }
    for difference in &settled.differences {
        findings.add(Rule::Counters, format_args!("verify: {difference}"));
    }
}

/// The four counters, in the order of [`NAMES`].
type Values = [i64; 4];

fn values(counters: &Counters) -> Values {
    let Counters { received, unique_processed, duplicate_dropped, conflicts } = *counters;
    [received, unique_processed, duplicate_dropped, conflicts]
}

/// When and where counters were read.
#[derive(Clone, Copy)]
struct Answer {
    asked: Moment,
    got: Moment,
    /// None at the end of the round.
    instance: Option<usize>,
}

impl Answer {
    fn of(asked: Moment, got: Moment, instance: usize) -> Self {
        Self { asked, got, instance: Some(instance) }
    }
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.instance {
            Some(instance) => {
                write!(f, "instance {instance} from {:.3?} to {:.3?}", self.asked, self.got)
            }
            None => f.write_str("in the end"),
        }
    }
}

/// The scope of counters.
#[derive(Clone, Copy)]
enum Scope<'a> {
    All,
    Topic(&'a str),
}

impl Scope<'_> {
    /// A topic that is not in the response has no events.
    fn of(self, totals: &Counters, topics: &BTreeMap<std::sync::Arc<str>, Counters>) -> Values {
        match self {
            Self::All => values(totals),
            Self::Topic(topic) => topics.get(topic).map(values).unwrap_or_default(),
        }
    }

    fn has(self, name: &str) -> bool {
        match self {
            Self::All => true,
            Self::Topic(topic) => topic == name,
        }
    }
}

impl fmt::Display for Scope<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All => f.write_str("all topics"),
            Self::Topic(topic) => write!(f, "topic {topic}"),
        }
    }
}

/// All events that may have been counted.
fn scopes(history: &History) -> Vec<Scope<'_>> {
    let settled = &history.settled;
    let mut topics: BTreeSet<&str> = settled.topics.keys().map(|topic| &**topic).collect();
    topics.extend(settled.rows.iter().map(|row| &*row.key.topic));
    topics.extend(
        history.samples.iter().flat_map(|sample| sample.topics.keys().map(|topic| &**topic)),
    );
    topics.extend(history.attempts.iter().map(|attempt| &*attempt.key.topic));
    std::iter::once(Scope::All).chain(topics.into_iter().map(Scope::Topic)).collect()
}

/// Sorted times per counter, for its bounds.
struct Sent {
    /// Times from which an event must be counted.
    told: [Vec<Moment>; 4],
    /// Times before which an event cannot be counted.
    possible: [Vec<Moment>; 4],
}

impl Sent {
    fn of<'a>(trails: impl Iterator<Item = &'a Trail<'a>>) -> Self {
        let mut sent = Self { told: Default::default(), possible: Default::default() };
        for trail in trails {
            // A key is unique once, regardless of the number of attempts.
            sent.told[1].extend(trail.first_known().filter(|_| trail.may_be_seen()));
            sent.possible[1].extend(trail.first_sent());
            for attempt in &trail.attempts {
                let (certain, perhaps): (&[usize], &[usize]) = match attempt.outcome {
                    Outcome::Accepted => (&[0], &[0]),
                    Outcome::Duplicate => (&[0, 2], &[0, 2]),
                    Outcome::Conflict => (&[0, 2, 3], &[0, 2, 3]),
                    Outcome::Unknown(_) => (&[], &[0, 2, 3]),
                    Outcome::Failed(_) => (&[], &[]),
                };
                certain.iter().for_each(|&counter| sent.told[counter].push(attempt.returned));
                perhaps.iter().for_each(|&counter| sent.possible[counter].push(attempt.invoked));
            }
        }
        sent.told.iter_mut().chain(&mut sent.possible).for_each(|moments| moments.sort_unstable());
        sent
    }
}

fn adds_up(
    answer: &Answer,
    totals: &Counters,
    topics: &BTreeMap<std::sync::Arc<str>, Counters>,
    findings: &mut Findings,
) {
    let all = std::iter::once((Scope::All, totals));
    let each = topics.iter().map(|(topic, counters)| (Scope::Topic(topic), counters));
    let mut sums = [0; 4];
    for (scope, counters) in all.chain(each) {
        let [received, unique, repeated, conflicts] = values(counters);
        if received != unique + repeated || conflicts > repeated || conflicts < 0 {
            let what = format_args!(
                "{scope}, {answer}: {received} received, {unique} unique, {repeated} repeated, \
                 {conflicts} conflicts do not add up"
            );
            findings.add(Rule::Counters, what);
        }
        if let Scope::Topic(_) = scope {
            sums.iter_mut().zip(values(counters)).for_each(|(sum, value)| *sum += value);
        }
    }
    let totals = values(totals);
    if sums != totals {
        let what = format_args!("{answer}: totals are {totals:?}, and topics add up to {sums:?}");
        findings.add(Rule::Counters, what);
    }
}

/// Acknowledged events are counted, and events that were not sent are not.
fn within_bounds(
    scope: Scope<'_>,
    answer: &Answer,
    values: &Values,
    sent: &Sent,
    findings: &mut Findings,
) {
    for (counter, name) in NAMES.into_iter().enumerate() {
        let value = values[counter];
        let told = sent.told[counter].partition_point(|&returned| returned < answer.asked) as i64;
        let possible =
            sent.possible[counter].partition_point(|&invoked| invoked <= answer.got) as i64;
        if value < told {
            let what =
                format_args!("{scope}, {answer}: {name} is {value}, and {told} were known before");
            findings.add(Rule::Counters, what);
        }
        if value > possible {
            let what =
                format_args!("{scope}, {answer}: {name} is {value}, and only {possible} may be");
            findings.add(Rule::Counters, what);
        }
    }
}

/// A response is at least as large as every response that was received before its request.
fn never_back(scope: Scope<'_>, answers: &[(Answer, Values)], findings: &mut Findings) {
    let mut by_asked: Vec<_> = answers.iter().collect();
    by_asked.sort_by_key(|(answer, _)| answer.asked);
    let mut by_got = by_asked.clone();
    by_got.sort_by_key(|(answer, _)| answer.got);
    let mut earlier = by_got.into_iter().peekable();
    let mut seen = Values::default();
    for (answer, values) in by_asked {
        while let Some((_, before)) = earlier.next_if(|(before, _)| before.got < answer.asked) {
            seen.iter_mut().zip(before).for_each(|(most, &value)| *most = value.max(*most));
        }
        for ((name, &value), most) in NAMES.into_iter().zip(values).zip(seen) {
            if value < most {
                let what =
                    format_args!("{scope}, {answer}: {name} is {value}, and was {most} before");
                findings.add(Rule::Counters, what);
            }
        }
    }
}
