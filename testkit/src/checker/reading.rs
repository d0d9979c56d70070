//! Compares the results of subscriptions and listings with the stored rows.

use std::collections::{BTreeMap, HashSet};

use super::{Delivery, Findings, History, Key, Moment, Row, Rule, trails::Trails};

pub(super) fn check(history: &History, trails: &Trails<'_>, findings: &mut Findings) {
    for (number, reader) in history.readers.iter().enumerate() {
        let who = format!("reader {number}");
        let shown = shown(&who, &reader.deliveries, trails, findings);
        follows_lanes(&who, &shown, findings);
        match reader.caught_up {
            true => is_whole(&who, &shown, &history.settled.heads, findings),
            false => findings.add(Rule::Liveness, format_args!("{who} has not caught up")),
        }
    }
    let known = Known::of(history, trails);
    for listing in &history.listings {
        let who = format!("the listing from {:.3?} to {:.3?}", listing.invoked, listing.returned);
        let shown = shown(&who, &listing.events, trails, findings);
        rises(&who, &shown, findings);
        if listing.complete {
            is_whole(&who, &shown, &known.before(listing.invoked), findings);
            shows_what_is_counted(&who, shown.len(), listing.invoked, history, findings);
        }
    }
}

/// The rows that a reader received, each once. Reports events without a matching row.
fn shown<'a>(
    who: &str,
    deliveries: &[Delivery],
    trails: &Trails<'a>,
    findings: &mut Findings,
) -> Vec<&'a Row> {
    let mut rows = Vec::with_capacity(deliveries.len());
    let mut seen: HashSet<&Key> = HashSet::with_capacity(deliveries.len());
    for delivery in deliveries {
        let (key, at) = (&delivery.key, delivery.at);
        if !seen.insert(key) {
            findings.add(Rule::Duplicate, format_args!("{who} got {key} again at {at:.3?}"));
            continue;
        }
        let trail = trails.get(key).filter(|trail| trail.may_be_seen());
        let Some(trail) = trail else {
            let what = format_args!("{who} got {key} at {at:.3?}, which nobody may have stored");
            findings.add(Rule::Phantom, what);
            continue;
        };
        if trail.first_sent().is_some_and(|sent| sent > at) {
            let what = format_args!("{who} got {key} at {at:.3?}, before it was sent");
            findings.add(Rule::Phantom, what);
        }
        let Some(row) = trail.rows.first() else {
            findings.add(
                Rule::Cursor,
                format_args!("{who} got {key} at {at:.3?}, which is not stored"),
            );
            continue;
        };
        if row.content != delivery.content {
            findings.add(
                Rule::Cursor,
                format_args!("{who} got {key} with other content than is stored"),
            );
        }
        rows.push(*row);
    }
    rows
}

/// A subscriber receives each lane from its first sequence number, without gaps.
fn follows_lanes(who: &str, shown: &[&Row], findings: &mut Findings) {
    let mut lanes: BTreeMap<i16, i64> = BTreeMap::new();
    for row in shown {
        let last = lanes.entry(row.lane).or_default();
        if row.seq != *last + 1 {
            let Row { key, lane, seq, .. } = row;
            let what =
                format_args!("{who} got {key}, number {seq} of lane {lane}, after number {last}");
            findings.add(Rule::Cursor, what);
        }
        *last = row.seq;
    }
}

/// A listing shows each lane in order. It may lack events that were committed during the listing:
/// it is ordered by time of receipt, and a delayed commit can be after others in the database
/// although its events were received before.
fn rises(who: &str, shown: &[&Row], findings: &mut Findings) {
    let mut lanes: BTreeMap<i16, i64> = BTreeMap::new();
    for row in shown {
        let last = lanes.entry(row.lane).or_default();
        if row.seq <= *last {
            let Row { key, lane, seq, .. } = row;
            let what =
                format_args!("{who} has {key}, number {seq} of lane {lane}, after number {last}");
            findings.add(Rule::Cursor, what);
        }
        *last = row.seq;
    }
}

/// Each lane is complete up to a sequence number at least.
fn is_whole(who: &str, shown: &[&Row], ends: &BTreeMap<i16, i64>, findings: &mut Findings) {
    let mut counts: BTreeMap<i16, i64> = BTreeMap::new();
    for row in shown {
        let end = ends.get(&row.lane).copied().unwrap_or(0);
        *counts.entry(row.lane).or_default() += i64::from(row.seq <= end);
    }
    for (lane, &end) in ends {
        let count = counts.get(lane).copied().unwrap_or(0);
        if count < end {
            let missing = end - count;
            let what =
                format_args!("{who} lacks {missing} of the first {end} events of lane {lane}");
            findings.add(Rule::Cursor, what);
        }
    }
}

/// A full listing has at least as many events as were counted before.
fn shows_what_is_counted(
    who: &str,
    shown: usize,
    invoked: Moment,
    history: &History,
    findings: &mut Findings,
) {
    let before = history.samples.iter().filter(|sample| sample.returned < invoked);
    let counted = before.map(|sample| sample.totals.unique_processed).max().unwrap_or(0);
    if (shown as i64) < counted {
        let what = format_args!("{who} has {shown} events, and {counted} were counted before");
        findings.add(Rule::Cursor, what);
    }
}

/// When each part of a lane was known to be committed.
struct Known {
    /// Times of acknowledgement in order, each with the lane and the highest sequence number of the
    /// lane that was acknowledged by then: lower numbers were committed before.
    acknowledged: BTreeMap<i16, Vec<(Moment, i64)>>,
}

impl Known {
    fn of(history: &History, trails: &Trails<'_>) -> Self {
        let mut acknowledged: BTreeMap<i16, Vec<(Moment, i64)>> = BTreeMap::new();
        for attempt in history.attempts.iter().filter(|attempt| attempt.outcome.is_judged()) {
            if let Some(row) = trails.row(&attempt.key) {
                acknowledged.entry(row.lane).or_default().push((attempt.returned, row.seq));
            }
        }
        for acknowledged in acknowledged.values_mut() {
            acknowledged.sort_unstable();
            let mut highest = 0;
            for (_, seq) in acknowledged {
                highest = highest.max(*seq);
                *seq = highest;
            }
        }
        Self { acknowledged }
    }

    /// The highest sequence number of each lane that was acknowledged before a time.
    fn before(&self, moment: Moment) -> BTreeMap<i16, i64> {
        let before = |acknowledged: &Vec<(Moment, i64)>| {
            let count = acknowledged.partition_point(|(returned, _)| *returned < moment);
            count.checked_sub(1).map_or(0, |last| acknowledged[last].1)
        };
        self.acknowledged.iter().map(|(&lane, acknowledged)| (lane, before(acknowledged))).collect()
    }
}
