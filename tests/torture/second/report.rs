//! Summary of the rounds of the second checker.

use std::{collections::BTreeMap, fmt};

use super::{
    breaking::{Kind, Struck},
    judge::history::{History, Outcome},
};
use crate::Store;

/// Sums over rounds.
#[derive(Debug, Clone, Default)]
pub struct Sums {
    pub rounds: usize,
    pub keys: usize,
    pub answers: usize,
    pub conflicts: usize,
    pub lost: usize,
    pub sights: usize,
    pub walks: usize,
    pub resumed: usize,
    pub samples: usize,
    pub violations: usize,
    struck: Struck,
}

impl Sums {
    pub fn of(history: &History, struck: Struck, violations: usize) -> Self {
        let outcomes = || history.attempts.iter().map(|attempt| &attempt.outcome);
        Self {
            rounds: 1,
            keys: history.rows.len(),
            answers: outcomes().filter(|outcome| outcome.first().is_some()).count(),
            conflicts: outcomes().filter(|it| matches!(it, Outcome::Conflict { .. })).count(),
            lost: outcomes().filter(|outcome| outcome.is_lost()).count(),
            sights: history.sights.len(),
            walks: history.walks.len(),
            resumed: history.feeds.iter().map(|feed| feed.resumed).sum(),
            samples: history.samples.len(),
            violations,
            struck,
        }
    }

    pub fn add(&mut self, other: &Self) {
        self.rounds += other.rounds;
        self.keys += other.keys;
        self.answers += other.answers;
        self.conflicts += other.conflicts;
        self.lost += other.lost;
        self.sights += other.sights;
        self.walks += other.walks;
        self.resumed += other.resumed;
        self.samples += other.samples;
        self.violations += other.violations;
        for (kind, count) in &other.struck {
            *self.struck.entry(*kind).or_default() += count;
        }
    }
}

impl fmt::Display for Sums {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { keys, answers, conflicts, lost, sights, samples, violations, .. } = self;
        let struck: usize = self.struck.values().sum();
        write!(
            f,
            "{struck} faults, {keys} keys, {answers} answers ({conflicts} conflicts), {lost} \
             without an answer, {sights} reads, {samples} samples, {violations} violations"
        )
    }
}

/// Formats the sums as Markdown.
pub fn table(sums: &BTreeMap<Store, Sums>) -> String {
    let stores: Vec<String> = sums.keys().map(ToString::to_string).collect();
    let mut text = format!(
        "| second checker | {} |\n|---|{}\n",
        stores.join(" | "),
        "---:|".repeat(sums.len())
    );
    let mut row = |name: &str, number: &dyn Fn(&Sums) -> usize| {
        let numbers: Vec<String> = sums.values().map(|sums| number(sums).to_string()).collect();
        text.push_str(&format!("| {name} | {} |\n", numbers.join(" | ")));
    };
    row("rounds", &|sums| sums.rounds);
    row("keys stored", &|sums| sums.keys);
    row("answers checked", &|sums| sums.answers);
    row("of these, conflicts", &|sums| sums.conflicts);
    row("attempts without an answer", &|sums| sums.lost);
    row("reads of one key compared", &|sums| sums.sights);
    row("walks through all pages", &|sums| sums.walks);
    row("subscriptions resumed", &|sums| sums.resumed);
    row("samples of the counters", &|sums| sums.samples);
    for kind in [Kind::Kill, Kind::Stop, Kind::Terminate, Kind::Cancel, Kind::CutCommits] {
        let name = format!("fault: {}", kind.name());
        row(&name, &|sums| sums.struck.get(&kind).copied().unwrap_or(0));
    }
    row("**violations**", &|sums| sums.violations);
    text
}
