//! Each key is a register in which the first write wins. An operation takes effect at one instant
//! between its begin and its end; one without a response at any instant after its begin, or never.
//!
//! The search is exact and needs no permutations: only the instant t of the first write matters.
//! All other operations choose any of their instants before or after t, so t exists if the maximum
//! of the lower bounds is not after the minimum of the upper bounds.

use super::{
    Case, Findings, Rule,
    history::{Attempt, Moment},
    stored::is_stored,
};

pub(super) fn check(case: &Case<'_>, findings: &mut Findings) {
    let Some(row) = case.row else { return };
    let firsts = case.firsts();
    let candidates = firsts.into_iter().filter(|attempt| is_stored(case, attempt, row));
    let tried: Vec<Result<(), String>> =
        candidates.map(|first| place_first_write(case, first)).collect();
    // Without a candidate, another rule is already violated.
    if !tried.is_empty() && tried.iter().all(Result::is_err) {
        let reasons: Vec<String> = tried.into_iter().filter_map(Result::err).collect();
        findings.add(Rule::Order, case.violation(reasons.join("; or ")));
    }
}

/// Searches for an instant at which this attempt may have stored the event.
fn place_first_write(case: &Case<'_>, first: &Attempt) -> Result<(), String> {
    // A read that found nothing was before it.
    let absent = case.sights.iter().filter(|sight| sight.seen.is_none());
    let earliest = absent.map(|sight| (sight.begin, sight.by)).max();
    let earliest = earliest.max(Some((first.begin, "the first write"))).unwrap_or_default();
    // Verdicts by the event, and reads that found it, were after it.
    let judged = case.attempts.iter().filter(|attempt| attempt.outcome.first().is_some());
    let repeats = judged.map(|attempt| (attempt.end, "an answer"));
    let found = case.sights.iter().filter(|sight| sight.seen.is_some());
    let found = found.map(|sight| (sight.end, sight.by));
    let latest = repeats.chain(found).min().unwrap_or((Moment::MAX, ""));
    match earliest.0 <= latest.0 {
        true => Ok(()),
        false => Err(format!(
            "{} shows the event at {} µs, and {} needs it stored after {} µs",
            latest.1, latest.0, earliest.1, earliest.0
        )),
    }
}
