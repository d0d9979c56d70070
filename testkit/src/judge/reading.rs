//! Reads return the stored content, and listings have each event once, in order.

use std::collections::BTreeSet;

use super::{
    Case, Findings, Rule,
    history::{History, Row, Seen, Walk},
};

/// The first field that differs from the stored event.
fn differs(row: &Row, seen: &Seen) -> Option<&'static str> {
    let fields = [
        ("source", seen.source != row.source),
        ("timestamp", seen.timestamp != row.timestamp.unwrap_or(row.received_at)),
        ("payload", seen.payload != row.payload),
        ("received_at", seen.received_at != row.received_at),
    ];
    fields.into_iter().find_map(|(field, differs)| differs.then_some(field))
}

pub(super) fn check_sights(case: &Case<'_>, findings: &mut Findings) {
    for sight in &case.sights {
        let Some(seen) = &sight.seen else { continue };
        let Some(row) = case.row else {
            let text = format!("{} gave an event that is not stored", sight.by);
            findings.add(Rule::Reading, case.violation(text));
            continue;
        };
        if let Some(field) = differs(row, seen) {
            let text = format!("{} gave another {field} than is stored", sight.by);
            findings.add(Rule::Reading, case.violation(text));
        }
    }
}

/// A listing has each event once, ordered by receipt. That it contains the events that were stored
/// when it began is judged by the register rule.
pub(super) fn check_walks(history: &History, cases: &[Case<'_>], findings: &mut Findings) {
    for Walk { oldest_first, begin, events } in &history.walks {
        let mut listed = BTreeSet::new();
        for (key, _) in events {
            if !listed.insert(*key) {
                let text = cases[*key].violation("listed twice in one walk through the pages");
                findings.add(Rule::Reading, text);
            }
        }
        let is_in_order = events.is_sorted_by(|one, next| match oldest_first {
            true => one.1 <= next.1,
            false => one.1 >= next.1,
        });
        if !is_in_order {
            findings.add(Rule::Reading, format!("the walk begun at {begin} µs is out of order"));
        }
    }
}
