//! Runs rounds concurrently, judges them, and prints the results.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    path::Path,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use tempfile::TempDir;
use testkit::postgres::Server;
use tokio::{
    task::{JoinSet, spawn_blocking},
    time::timeout,
};

use super::{
    judge::{self, Rule, Violation},
    keeping,
    report::{self, Sums},
    round::{self, Case, Ended},
};
use crate::{Store, arguments::Arguments, cargo, database::Database, mutants::Mutant};

/// Timeout of a round.
const ROUND: Duration = Duration::from_secs(300);

/// Maximum number of violations that are printed per round.
const PRINTED: usize = 20;

/// Rounds within which a mutant is looked for.
const HUNT: u64 = 20;

/// Runs rounds one after another. All rounds on PostgreSQL share a server.
struct Worker {
    arguments: Arc<Arguments>,
    server: Option<Arc<Server>>,
}

/// Runs all rounds. Returns whether there were no violations.
pub async fn run(arguments: &Arc<Arguments>) -> bool {
    let rounds = Arc::new(Mutex::new(arguments.second_rounds()));
    let mut working = JoinSet::new();
    for _ in 0..arguments.jobs {
        let mut worker = Worker { arguments: Arc::clone(arguments), server: None };
        let rounds = Arc::clone(&rounds);
        working.spawn(async move {
            let mut sums: BTreeMap<Store, Sums> = BTreeMap::new();
            while let Some((store, seed)) = next(&rounds) {
                let part = worker.round(store, seed).await;
                sums.entry(store).or_default().add(&part);
            }
            sums
        });
    }
    let mut sums: BTreeMap<Store, Sums> = BTreeMap::new();
    for (store, part) in working.join_all().await.into_iter().flatten() {
        sums.entry(store).or_default().add(&part);
    }
    for (store, sums) in &sums {
        println!("second checker, {store}: {} rounds, {sums}", sums.rounds);
    }
    if arguments.gate {
        println!("\n{}", report::table(&sums));
    }
    sums.values().all(|sums| sums.violations == 0)
}

fn next<T>(queue: &Mutex<VecDeque<T>>) -> Option<T> {
    queue.lock().unwrap_or_else(PoisonError::into_inner).pop_front()
}

fn folder() -> TempDir {
    tempfile::Builder::new().prefix("torture-second-").tempdir().expect("a temporary folder")
}

impl Worker {
    async fn round(&mut self, store: Store, seed: u64) -> Sums {
        let began = Instant::now();
        let folder = folder();
        let arguments = Arc::clone(&self.arguments);
        let case = Case { store, seed, mutant: arguments.mutant };
        let (ended, violations) = match self.judged(case, folder.path()).await {
            Ok(judged) => judged,
            Err(reason) => {
                let text = format!("the round failed: {reason}");
                let ended = Ended { history: Default::default(), struck: Default::default() };
                (ended, vec![Violation { rule: Rule::Answer, text }])
            }
        };
        let sums = Sums::of(&ended.history, ended.struck, violations.len());
        let seconds = began.elapsed().as_secs_f64();
        println!("second checker, {store}, seed {seed}: {sums}, {seconds:.1} s");
        if !violations.is_empty() || arguments.keep {
            match keeping::keep(case, &ended.history, folder.path()) {
                Ok(kept) => println!("    the history and the logs are in {}", kept.display()),
                Err(error) => println!("    the history cannot be kept: {error}"),
            }
        }
        print(&violations, PRINTED);
        if !violations.is_empty() {
            let mutant = case.mutant.map(|mutant| format!(" --mutant {}", mutant.name));
            let mutant = mutant.unwrap_or_default();
            let store = match store {
                Store::Postgres => "postgres",
                Store::Sqlite => "sqlite",
            };
            let cargo = cargo();
            let one = format!("--only second --store {store} --seed {seed} --rounds 1{mutant}");
            println!("    to see it again: {cargo} {one}");
        }
        sums
    }

    /// Runs a round and judges it. Fails if the round itself failed.
    async fn judged(
        &mut self,
        case: Case,
        folder: &Path,
    ) -> Result<(Ended, Vec<Violation>), String> {
        let database = match case.store {
            Store::Sqlite => Database::Sqlite(folder.join("events.db")),
            Store::Postgres => self.postgres().await?,
        };
        let database = Arc::new(database);
        let running = Box::pin(round::run(case, Arc::clone(&database), folder));
        let ended = timeout(ROUND, running).await;
        if let Ok(database) = Arc::try_unwrap(database) {
            database.remove().await;
        }
        let ended = ended.unwrap_or_else(|_| Err(format!("not done after {ROUND:?}")))?;
        let judging = spawn_blocking(move || {
            let violations = judge::judge(&ended.history);
            (ended, violations)
        });
        judging.await.map_err(|error| error.to_string())
    }

    async fn postgres(&mut self) -> Result<Database, String> {
        let server = match &self.server {
            Some(server) => Arc::clone(server),
            None => {
                // Commits must be flushed, because the service refuses other settings.
                let starting = spawn_blocking(|| Server::start("-c shared_buffers=64MB"));
                Arc::new(starting.await.map_err(|error| error.to_string())?)
            }
        };
        self.server = Some(Arc::clone(&server));
        Database::on(server).await.map_err(|error| error.to_string())
    }
}

fn print(violations: &[Violation], most: usize) {
    violations.iter().take(most).for_each(|violation| println!("    VIOLATION: {violation}"));
    if violations.len() > most {
        println!("    and {} more", violations.len() - most);
    }
}

/// Looks for each mutant on each store, and says which rules found it, and when. One that this checker
/// does not find is no failure: some need faults that only the first one makes.
pub async fn hunt(arguments: &Arc<Arguments>, mutants: &[&'static Mutant]) {
    let stores = arguments.stores();
    let cases = mutants.iter().flat_map(|mutant| stores.iter().map(move |store| (*mutant, *store)));
    let queue: Arc<Mutex<VecDeque<_>>> = Arc::new(Mutex::new(cases.collect()));
    let mut working = JoinSet::new();
    for _ in 0..arguments.jobs {
        let mut worker = Worker { arguments: Arc::clone(arguments), server: None };
        let queue = Arc::clone(&queue);
        working.spawn(async move {
            let mut lines = Vec::new();
            while let Some((mutant, store)) = next(&queue) {
                lines.push(worker.search(mutant, store).await);
            }
            lines
        });
    }
    let mut lines: Vec<String> = working.join_all().await.into_iter().flatten().collect();
    lines.sort();
    println!("\n| mutant | store | found by | rounds |\n|---|---|---|---:|\n{}", lines.join("\n"));
}

impl Worker {
    /// Runs rounds until a mutant is found. Returns a line of the table.
    async fn search(&mut self, mutant: &'static Mutant, store: Store) -> String {
        let name = mutant.name;
        let first = self.arguments.seed;
        for round in 1..=HUNT {
            let folder = folder();
            let case = Case { store, seed: first + round - 1, mutant: Some(mutant) };
            let violations = match self.judged(case, folder.path()).await {
                Ok((_, violations)) => violations,
                // A mutant that lets nothing start is not found.
                Err(reason) => {
                    println!("{name} on {store}: {reason}");
                    continue;
                }
            };
            let rules: BTreeSet<String> =
                violations.iter().map(|violation| violation.rule.to_string()).collect();
            if !rules.is_empty() {
                println!("{name} on {store}, seed {}:", case.seed);
                print(&violations, 3);
                let rules: Vec<String> = rules.into_iter().collect();
                return format!("| {name} | {store} | {} | {round} |", rules.join(", "));
            }
        }
        format!("| {name} | {store} | not found | {HUNT} |")
    }
}
