//! Whether the test has teeth: each bug that can be planted in the service must be found, and soon.

use std::{
    collections::{BTreeSet, VecDeque},
    fmt::Write,
    process::ExitCode,
    sync::{Arc, Mutex},
};

use tokio::task::JoinSet;

use crate::{
    Store,
    arguments::Arguments,
    cargo,
    checker::{Rule, Violation},
    faults::Kind,
    second,
    worker::{Case, Worker},
};

/// Rounds within which a bug must be found.
const ROUNDS: u64 = 20;

/// Bugs that one instance on SQLite shows as well, or only it. The others need a network, or the
/// company of other instances.
const ON_SQLITE: [&str; 9] = [
    "acks-dropped-on-drain",
    "counters-apart",
    "uncounted-duplicates",
    "early-dedup",
    "drain-throws-away",
    "accepted-twice",
    "conflict-is-duplicate",
    "page-border",
    "late-is-refused",
];

/// Bugs that only show when one fault strikes, as when a commit gets no answer, with that fault. In other rounds it would be a matter of luck.
const SHOWN_BY: [(&str, Kind); 10] = [
    ("acks-dropped-on-drain", Kind::StopInstance),
    ("blind-retry", Kind::CutCommit),
    ("cursor-unmarked", Kind::RestoreStore),
    ("damage-holds-lane", Kind::DamageRow),
    ("identity-unchecked", Kind::SwapStore),
    ("ledger-by-the-clock", Kind::JumpClock),
    ("no-share", Kind::GreedyClient),
    ("panic-is-abort", Kind::FsyncFails),
    ("probe-by-select", Kind::CutCommit),
    ("unknown-is-done", Kind::CutCommit),
];

/// Bugs that falsify nothing, but let something stand still.
const STAND_STILL: [&str; 3] = ["damage-holds-lane", "dead-lane", "no-share"];

type Queue = Arc<Mutex<VecDeque<Hunt>>>;

/// Looks for every bug that can be planted, or for the one that is asked for, and says which were
/// found.
pub async fn bite(arguments: Arc<Arguments>, possible: Arc<[Kind]>) -> ExitCode {
    let is_meant =
        |bug: &&&'static str| arguments.planted.as_ref().is_none_or(|only| only == **bug);
    let hunts: VecDeque<Hunt> = bugs().iter().filter(is_meant).map(|bug| Hunt::of(bug)).collect();
    if hunts.is_empty() {
        println!("there is no such bug in the program: build it with --features planted-bugs");
        return ExitCode::FAILURE;
    }
    let queue = Arc::new(Mutex::new(hunts));
    let mut working = JoinSet::new();
    for _ in 0..arguments.jobs {
        let worker = Worker::new(&arguments, &possible);
        working.spawn(search(worker, arguments.seed, Arc::clone(&queue)));
    }
    let mut hunts: Vec<Hunt> = working.join_all().await.into_iter().flatten().collect();
    hunts.sort_by_key(|hunt| hunt.bug);
    println!("\n{}", table(&hunts));
    let all_found = hunts.iter().all(|hunt| !hunt.broken.is_empty());
    if all_found { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// The same by the second checker, which tells what it finds.
pub async fn bite_second(arguments: &Arc<Arguments>) -> ExitCode {
    let is_meant =
        |bug: &&&'static str| arguments.planted.as_ref().is_none_or(|only| only == **bug);
    let meant: Vec<&'static str> = bugs().iter().filter(is_meant).copied().collect();
    second::hunt(arguments, &meant).await
}

/// Whether the program has a bug of this name.
pub fn can_be_planted(bug: &str) -> bool {
    bugs().contains(&bug)
}

#[cfg(feature = "planted-bugs")]
fn bugs() -> &'static [&'static str] {
    &event_aggregator::planted::NAMES
}

#[cfg(not(feature = "planted-bugs"))]
fn bugs() -> &'static [&'static str] {
    &[]
}

/// The search for one bug.
#[derive(Debug)]
struct Hunt {
    bug: &'static str,
    store: Store,
    fault: Option<Kind>,
    rounds: u64,
    /// The rules that it broke.
    broken: BTreeSet<Rule>,
}

impl Hunt {
    fn of(bug: &'static str) -> Self {
        let store = if ON_SQLITE.contains(&bug) { Store::Sqlite } else { Store::Postgres };
        let fault = SHOWN_BY.iter().find(|(shown, _)| *shown == bug).map(|(_, by)| *by);
        Self { bug, store, fault, rounds: 0, broken: BTreeSet::new() }
    }

    fn goes_on(&self) -> bool {
        self.broken.is_empty() && self.rounds < ROUNDS
    }

    /// Takes note of what a round found. Nearly all bugs falsify data or what is said about it;
    /// whatever merely stands still may be something else then.
    fn note(&mut self, violations: &[Violation]) {
        let last = if STAND_STILL.contains(&self.bug) { Rule::Liveness } else { Rule::Cursor };
        let rules = violations.iter().map(|violation| violation.rule);
        self.broken.extend(rules.filter(|rule| *rule <= last));
    }
}

/// Looks for one bug after the other, each until it is found or rounds run out.
async fn search(mut worker: Worker, first_seed: u64, queue: Queue) -> Vec<Hunt> {
    let mut done = Vec::new();
    loop {
        let next = queue.lock().expect("no panic").pop_front();
        let Some(mut hunt) = next else { return done };
        while hunt.goes_on() {
            let Hunt { bug, store, fault, rounds, .. } = hunt;
            let seed = first_seed + rounds;
            let case = Case { store, seed, planted: Some(bug), fault };
            let folder = tempfile::Builder::new().prefix("torture-").tempdir().expect("folder");
            hunt.rounds += 1;
            match worker.judged(case, folder.path()).await {
                Ok((_, violations)) => {
                    println!("{bug} on {store}, seed {seed}: {} violations", violations.len());
                    let some = violations.iter().take(3);
                    some.for_each(|violation| println!("    {violation}"));
                    println!("    again: {} --teeth --planted {bug} --seed {seed}", cargo());
                    hunt.note(&violations);
                }
                // A bug that lets nothing start is not found.
                Err(reason) => println!("{bug} on {store}, seed {seed}: {reason}"),
            }
        }
        done.push(hunt);
    }
}

/// What came of it, as Markdown.
fn table(hunts: &[Hunt]) -> String {
    let mut text = "| bug | store | found by | rounds |\n|---|---|---|---:|\n".to_owned();
    for Hunt { bug, store, rounds, broken, .. } in hunts {
        let rules: Vec<String> = broken.iter().map(ToString::to_string).collect();
        let rules = if rules.is_empty() { "**not found**".to_owned() } else { rules.join(", ") };
        let _ = writeln!(text, "| {bug} | {store} | {rules} | {rounds} |");
    }
    text
}
