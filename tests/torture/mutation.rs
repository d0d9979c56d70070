//! The mutation test: each mutant of the service must be found, and soon.

use std::{
    collections::{BTreeSet, VecDeque},
    fmt::Write,
    sync::{Arc, Mutex},
};

use tokio::task::JoinSet;

use crate::{
    arguments::{Arguments, Checker},
    cargo,
    checker::{Rule, Violation},
    mutants::Mutant,
    possible_faults, second,
    worker::{Case, Worker},
};

/// Rounds within which a mutant must be found.
const ROUNDS: u64 = 20;

type Queue = Arc<Mutex<VecDeque<Hunt>>>;

/// Looks for the chosen mutants, and prints which were found. Returns whether all were.
pub async fn test(arguments: Arc<Arguments>) -> bool {
    let mutants = arguments.chosen_mutants();
    if !arguments.wants(Checker::First) {
        second::hunt(&arguments, &mutants).await;
        return true;
    }
    let possible = possible_faults().await;
    let queue = Arc::new(Mutex::new(mutants.into_iter().map(Hunt::of).collect()));
    let mut working = JoinSet::new();
    for _ in 0..arguments.jobs {
        let worker = Worker::new(&arguments, &possible);
        working.spawn(search(worker, arguments.seed, Arc::clone(&queue)));
    }
    let mut hunts: Vec<Hunt> = working.join_all().await.into_iter().flatten().collect();
    hunts.sort_by_key(|hunt| hunt.mutant.name);
    println!("\n{}", table(&hunts));
    hunts.iter().all(|hunt| !hunt.broken.is_empty())
}

/// The search for one mutant.
#[derive(Debug)]
struct Hunt {
    mutant: &'static Mutant,
    rounds: u64,
    /// The rules that it broke.
    broken: BTreeSet<Rule>,
}

impl Hunt {
    fn of(mutant: &'static Mutant) -> Self {
        Self { mutant, rounds: 0, broken: BTreeSet::new() }
    }

    fn goes_on(&self) -> bool {
        self.broken.is_empty() && self.rounds < ROUNDS
    }

    /// Records what a round found. A mutant that falsifies data or reports must be found by that:
    /// if it also blocks progress, the cause may be another.
    fn note(&mut self, violations: &[Violation]) {
        let last = if self.mutant.blocks { Rule::Liveness } else { Rule::Cursor };
        let rules = violations.iter().map(|violation| violation.rule);
        self.broken.extend(rules.filter(|rule| *rule <= last));
    }
}

/// Looks for one mutant after the other, each until it is found or rounds run out.
async fn search(mut worker: Worker, first_seed: u64, queue: Queue) -> Vec<Hunt> {
    let mut done = Vec::new();
    loop {
        let next = queue.lock().expect("no panic").pop_front();
        let Some(mut hunt) = next else { return done };
        while hunt.goes_on() {
            let mutant = hunt.mutant;
            let Mutant { name, store, fault, .. } = *mutant;
            let seed = first_seed + hunt.rounds;
            let case = Case { store, seed, mutant: Some(mutant), fault };
            let folder = tempfile::Builder::new().prefix("torture-").tempdir().expect("folder");
            hunt.rounds += 1;
            match worker.judged(case, folder.path()).await {
                Ok((_, violations)) => {
                    println!("{name} on {store}, seed {seed}: {} violations", violations.len());
                    let some = violations.iter().take(3);
                    some.for_each(|violation| println!("    {violation}"));
                    println!("    again: {} --mutants --mutant {name} --seed {seed}", cargo());
                    hunt.note(&violations);
                }
                // A mutant that lets nothing start is not found.
                Err(reason) => println!("{name} on {store}, seed {seed}: {reason}"),
            }
        }
        done.push(hunt);
    }
}

/// The results, as Markdown.
fn table(hunts: &[Hunt]) -> String {
    let mut text = "| mutant | store | found by | rounds |\n|---|---|---|---:|\n".to_owned();
    for Hunt { mutant, rounds, broken } in hunts {
        let rules: Vec<String> = broken.iter().map(ToString::to_string).collect();
        let rules = if rules.is_empty() { "**not found**".to_owned() } else { rules.join(", ") };
        let _ = writeln!(text, "| {} | {} | {rules} | {rounds} |", mutant.name, mutant.store);
    }
    text
}
