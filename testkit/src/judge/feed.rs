//! Subscriptions from the beginning: each stored event is delivered once, and events of one topic
//! in commit order.

use std::{collections::BTreeMap, sync::Arc};

use super::{
    Case, Findings, Rule,
    history::{Feed, History},
};

pub(super) fn check(history: &History, cases: &[Case<'_>], findings: &mut Findings) {
    for (number, feed) in history.feeds.iter().enumerate() {
        let Feed { deliveries, caught_up, .. } = feed;
        if !caught_up {
            findings.add(Rule::Feed, format!("subscription {number} never caught up"));
        }
        let mut times: BTreeMap<usize, usize> = BTreeMap::new();
        let mut last: BTreeMap<&Arc<str>, (i64, i64)> = BTreeMap::new();
        for key in deliveries {
            *times.entry(*key).or_default() += 1;
            let Some(row) = cases[*key].row else {
                let text = format!("subscription {number} brought what is not stored");
                findings.add(Rule::Feed, cases[*key].violation(text));
                continue;
            };
            let before = last.insert(&cases[*key].key.topic, (row.lane, row.seq));
            if before.is_some_and(|before| before > (row.lane, row.seq)) {
                let text = format!("subscription {number} brought it after a later commit");
                findings.add(Rule::Feed, cases[*key].violation(text));
            }
        }
        for (key, case) in cases.iter().enumerate() {
            match times.get(&key).copied().unwrap_or(0) {
                0 if case.row.is_some() && *caught_up => {
                    let text = format!("subscription {number} never brought it");
                    findings.add(Rule::Feed, case.violation(text));
                }
                0 | 1 => (),
                count => {
                    let text = format!("subscription {number} brought it {count} times");
                    findings.add(Rule::Feed, case.violation(text));
                }
            }
        }
    }
}
