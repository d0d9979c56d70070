//! Checks that a round is not vacuous: no rule finds anything in an empty history.

use std::collections::BTreeSet;

use super::{Findings, History, Rule};

/// Minimum contents of a history.
#[derive(Debug, Clone, Copy)]
pub struct Enough {
    /// Producers with an acknowledged event.
    pub producers: usize,
    /// Subscribers with an event.
    pub readers: usize,
    /// Complete listings.
    pub listings: usize,
    /// Samples of the counters.
    pub samples: usize,
}

pub(super) fn check(history: &History, enough: Enough, findings: &mut Findings) {
    let judged = history.attempts.iter().filter(|attempt| attempt.outcome.is_judged());
    let producers: BTreeSet<usize> = judged.map(|attempt| attempt.producer).collect();
    let readers = history.readers.iter().filter(|reader| !reader.deliveries.is_empty());
    let listings = history.listings.iter().filter(|listing| listing.complete);
    let counts = [
        ("producers were answered", producers.len(), enough.producers),
        ("readers got something", readers.count(), enough.readers),
        ("listings were complete", listings.count(), enough.listings),
        ("samples of the counters were taken", history.samples.len(), enough.samples),
    ];
    for (what, count, enough) in counts {
        if count < enough {
            findings.add(Rule::Vacuous, format_args!("{count} {what}, not {enough}"));
        }
    }
}
