//! Each key is a register in which the first write wins. An operation takes effect at one instant
//! between its begin and its end; one without an answer at any instant after its begin, or never.
//!
//! The search is exact and needs no permutations: only the instant t of the first write matters. The
//! others choose any instant of theirs before or after it, so t exists if the latest of the bounds from
//! below is not after the earliest of those from above.

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
    // Without a candidate another rule is broken already.
    if !tried.is_empty() && tried.iter().all(Result::is_err) {
        let reasons: Vec<String> = tried.into_iter().filter_map(Result::err).collect();
        findings.add(Rule::Order, case.violation(reasons.join("; or ")));
    }
}

/// Looks for an instant at which this attempt may have stored the event.
fn place_first_write(case: &Case<'_>, first: &Attempt) -> Result<(), String> {
    // A read that found nothing came before it.
    let absent = case.sights.iter().filter(|sight| sight.seen.is_none());
    let earliest = absent.map(|sight| (sight.begin, sight.by)).max();
    let earliest = earliest.max(Some((first.begin, "the first write"))).unwrap_or_default();
    // Whatever was judged by the event, or found it, came after it.
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
