//! Command-line arguments of the torture test.

use std::collections::VecDeque;

use clap::{Parser, ValueEnum, value_parser};

use crate::{
    Store,
    mutants::{self, MUTANTS, Mutant},
};

/// Rounds that a release needs without a violation, of the first checker.
const GATE: [(Store, u64); 2] = [(Store::Postgres, 200), (Store::Sqlite, 100)];

/// The same for the second checker.
const SECOND_GATE: [(Store, u64); 2] = [(Store::Postgres, 60), (Store::Sqlite, 40)];

/// Default number of rounds on each store, of the first and the second checker.
const ROUNDS: (u64, u64) = (3, 1);

/// Options that cannot be combined with the filters of `cargo test`.
const OWN: [&str; 9] =
    ["store", "seed", "rounds", "jobs", "gate", "keep", "mutant", "mutants", "only"];

#[derive(Debug, Parser)]
#[command(about = "Runs the service under load with faults, and checks the results")]
pub struct Arguments {
    /// Run only if the name of this test contains one of these, as `cargo test` has it
    #[arg(conflicts_with_all = OWN)]
    filters: Vec<String>,

    /// Run only on this store
    #[arg(long, value_enum, default_value = "both")]
    store: Stores,

    /// Seed of the first round; it increases by one per round
    #[arg(long, default_value_t = 1)]
    pub seed: u64,

    /// Rounds on each store [default: 3, and 1 of the second checker]
    #[arg(long, value_parser = value_parser!(u64).range(1..))]
    rounds: Option<u64>,

    /// Number of concurrent rounds
    #[arg(long, default_value_t = 2, value_parser = value_parser!(u64).range(1..))]
    pub jobs: u64,

    /// Run what a release needs without a violation: 200 rounds on PostgreSQL and 100 on SQLite, then
    /// 60 and 40 of the second checker, and print a summary in Markdown
    #[arg(long, conflicts_with_all = ["store", "seed", "rounds", "mutant", "mutants"])]
    pub gate: bool,

    /// Keep the history and the logs of all rounds, instead of only those with violations
    #[arg(long)]
    pub keep: bool,

    /// Run with a mutant instead of the service
    #[arg(long, value_name = "NAME", value_parser = mutants::find)]
    pub mutant: Option<&'static Mutant>,

    /// Run the mutation test: each mutant must be found, or the one of --mutant
    #[arg(long)]
    pub mutants: bool,

    /// Run the rounds of one checker only
    #[arg(long, value_enum)]
    only: Option<Checker>,

    #[command(flatten)]
    harness: Harness,
}

impl Arguments {
    /// Whether the filters select the test with this name.
    pub fn mean(&self, name: &str) -> bool {
        let named = |filter: &String| name.contains(filter.as_str());
        let is_chosen = self.filters.is_empty() || self.filters.iter().any(named);
        is_chosen && !self.harness.ignored && !self.harness.skip.iter().any(named)
    }

    /// Whether only the list of tests was requested.
    pub fn only_lists(&self) -> bool {
        self.harness.list
    }

    /// Whether to run the rounds of a checker.
    pub fn wants(&self, checker: Checker) -> bool {
        self.only.is_none_or(|only| only == checker)
    }

    /// The mutants to run: all of them in the mutation test, unless one is named.
    pub fn chosen_mutants(&self) -> Vec<&'static Mutant> {
        match (self.mutant, self.mutants) {
            (Some(mutant), _) => vec![mutant],
            (None, true) => MUTANTS.iter().collect(),
            (None, false) => Vec::new(),
        }
    }

    /// On which stores.
    pub fn stores(&self) -> &'static [Store] {
        match self.store {
            Stores::Postgres => &[Store::Postgres],
            Stores::Sqlite => &[Store::Sqlite],
            Stores::Both => &[Store::Postgres, Store::Sqlite],
        }
    }

    /// The rounds to run, by store and seed.
    pub fn rounds(&self) -> VecDeque<(Store, u64)> {
        self.queue(GATE, ROUNDS.0)
    }

    /// The rounds of the second checker.
    pub fn second_rounds(&self) -> VecDeque<(Store, u64)> {
        self.queue(SECOND_GATE, ROUNDS.1)
    }

    fn queue(&self, gate: [(Store, u64); 2], rounds: u64) -> VecDeque<(Store, u64)> {
        let rounds = self.rounds.unwrap_or(rounds);
        let counts: Vec<(Store, u64)> = match self.gate {
            true => gate.to_vec(),
            false => self.stores().iter().map(|store| (*store, rounds)).collect(),
        };
        let most = counts.iter().map(|(_, count)| *count).max().unwrap_or(0);
        let rounds = (0..most).flat_map(|number| {
            let wanted = counts.iter().filter(move |(_, count)| number < *count);
            wanted.map(move |(store, _)| (*store, self.seed + number))
        });
        rounds.collect()
    }
}

/// The checker that judges a round.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Checker {
    First,
    Second,
}

/// Arguments that `cargo test` passes to all tests. They are ignored.
#[derive(Debug, clap::Args)]
#[allow(dead_code, clippy::struct_excessive_bools)]
pub struct Harness {
    #[arg(long, hide = true)]
    list: bool,
    #[arg(long, hide = true)]
    nocapture: bool,
    #[arg(long, hide = true)]
    no_capture: bool,
    #[arg(long, hide = true)]
    show_output: bool,
    #[arg(long, hide = true)]
    exact: bool,
    #[arg(long, hide = true)]
    ignored: bool,
    #[arg(long, hide = true)]
    include_ignored: bool,
    #[arg(short, long, hide = true)]
    quiet: bool,
    #[arg(long, hide = true)]
    skip: Vec<String>,
    #[arg(long, hide = true)]
    test_threads: Option<usize>,
    #[arg(long, hide = true)]
    color: Option<String>,
    #[arg(long, hide = true)]
    format: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Stores {
    Postgres,
    Sqlite,
    Both,
}
