//! The torture test: real services under load while everything around them breaks, and afterwards the
//! question whether each event was kept, counted and told exactly once.
//!
//! A seed decides what is sent and what breaks when. Processes, disks and networks are real, so their
//! interleaving is not repeated to the letter: the same seed makes the same kind of trouble again.

// Nothing is public in a test.
#![allow(unreachable_pub)]

use std::{
    collections::{BTreeMap, VecDeque},
    fmt,
    path::{Path, PathBuf},
    process::ExitCode,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use clap::{Parser, ValueEnum};
use tokio::task::{JoinSet, spawn_blocking};

use crate::{
    checker::Violation, database::Database, faults::Kind, history::History,
    postgres_server::Server, report::Sums, round::Round,
};

mod checker;
mod cluster;
mod database;
mod faults;
mod history;
mod http;
mod journal;
mod outcome;
#[path = "../it/postgres_server.rs"]
mod postgres_server;
mod producers;
mod proxy;
mod readers;
mod recorder;
mod report;
mod round;
mod secrets;
mod settle;
mod teeth;
mod workload;

/// How long a round may take before it counts as stuck itself.
const ROUND: Duration = Duration::from_secs(300);

#[derive(Debug, Parser)]
#[command(
    about = "Publishes, reads and counts while everything breaks, and checks what came of it"
)]
struct Arguments {
    /// Run only if the name of this test contains one of these, as `cargo test` has it
    filters: Vec<String>,

    /// On which store
    #[arg(long, value_enum, default_value = "both")]
    store: Stores,

    /// Seed of the first round; each next one has the next
    #[arg(long, default_value_t = 1)]
    seed: u64,

    /// Rounds on each store
    #[arg(long, default_value_t = 3)]
    rounds: u64,

    /// Rounds side by side
    #[arg(long, default_value_t = 2)]
    jobs: usize,

    /// Keep the history and the logs of all rounds, not only of those with violations
    #[arg(long)]
    keep: bool,

    /// Run with a bug in the service, which must be found
    #[arg(long)]
    planted: Option<String>,

    /// Run with each bug that can be planted, until each is found; the program must have them, by
    /// `--features planted-bugs`
    #[arg(long)]
    teeth: bool,

    /// Write a summary in Markdown
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,

    #[command(flatten)]
    harness: Harness,
}

/// What `cargo test` passes to all tests and has no meaning here.
#[derive(Debug, clap::Args)]
#[allow(dead_code, clippy::struct_excessive_bools)]
struct Harness {
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
enum Stores {
    Postgres,
    Sqlite,
    Both,
}

/// A store to torture.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Store {
    /// PostgreSQL, shared by instances.
    Postgres,
    /// A SQLite file, which has one.
    Sqlite,
}

impl fmt::Display for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Postgres => "PostgreSQL",
            Self::Sqlite => "SQLite",
        })
    }
}

const NAME: &str = "torture";

#[tokio::main]
async fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let named = |filter: &String| NAME.contains(filter.as_str());
    let is_meant = arguments.filters.is_empty() || arguments.filters.iter().any(named);
    if !is_meant || arguments.harness.ignored || arguments.harness.skip.iter().any(named) {
        return ExitCode::SUCCESS;
    }
    if arguments.harness.list {
        println!("{NAME}: test");
        return ExitCode::SUCCESS;
    }
    let arguments = Arc::new(arguments);
    let can_fail = spawn_blocking(faults::disk_can_fail).await.expect("no panic");
    if !can_fail {
        println!("this machine lets no flush fail (strace is missing, or may not attach): without");
    }
    match arguments.teeth {
        true => teeth::bite(arguments, can_fail).await,
        false => torture(arguments, can_fail).await,
    }
}

/// Runs all rounds and says what came of them.
async fn torture(arguments: Arc<Arguments>, can_fail: bool) -> ExitCode {
    let began = Instant::now();
    let mut rounds = VecDeque::new();
    for seed in (arguments.seed..).take(arguments.rounds as usize) {
        for store in [Store::Postgres, Store::Sqlite] {
            let other = match store {
                Store::Postgres => Stores::Sqlite,
                Store::Sqlite => Stores::Postgres,
            };
            if arguments.store != other {
                rounds.push_back((store, seed));
            }
        }
    }
    let rounds = Arc::new(Mutex::new(rounds));
    let mut working = JoinSet::new();
    for _ in 0..arguments.jobs.max(1) {
        let worker = Worker::new(&arguments, can_fail);
        working.spawn(worker.run(Arc::clone(&rounds)));
    }
    let mut sums: BTreeMap<Store, Sums> = BTreeMap::new();
    for parts in working.join_all().await {
        for (store, part) in parts {
            sums.entry(store).or_default().add(&part);
        }
    }
    for (store, sums) in &sums {
        println!("{store}: {} rounds, {sums}", sums.rounds);
    }
    if let Some(path) = &arguments.report {
        let command: Vec<String> = std::env::args().skip(1).collect();
        let command = format!("cargo test --test torture -- {}", command.join(" "));
        report::write(path, &sums, &command, began.elapsed()).expect("write the report");
    }
    let is_clean = sums.values().all(|sums| sums.violations == 0);
    if is_clean { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// A round to run.
#[derive(Debug, Clone, Copy)]
struct Case<'a> {
    store: Store,
    seed: u64,
    /// A bug in the service.
    planted: Option<&'a str>,
    /// What breaks, if nothing else is to.
    fault: Option<Kind>,
}

/// Runs one round after the other. All its rounds on PostgreSQL share a server.
struct Worker {
    arguments: Arc<Arguments>,
    can_fail: bool,
    server: Option<Arc<Server>>,
    sums: BTreeMap<Store, Sums>,
}

impl Worker {
    fn new(arguments: &Arc<Arguments>, can_fail: bool) -> Self {
        let (arguments, sums) = (Arc::clone(arguments), BTreeMap::new());
        Self { arguments, can_fail, server: None, sums }
    }

    async fn run(mut self, rounds: Arc<Mutex<VecDeque<(Store, u64)>>>) -> BTreeMap<Store, Sums> {
        loop {
            let next = rounds.lock().expect("no panic").pop_front();
            let Some((store, seed)) = next else { return self.sums };
            let part = self.round(store, seed).await;
            self.sums.entry(store).or_default().add(&part);
        }
    }

    /// Runs a round, judges it, and tells.
    async fn round(&mut self, store: Store, seed: u64) -> Sums {
        let began = Instant::now();
        let folder = tempfile::Builder::new().prefix("torture-").tempdir().expect("folder");
        let planted = self.arguments.planted.clone();
        let case = Case { store, seed, planted: planted.as_deref(), fault: None };
        let judged = self.judged(case, folder.path()).await;
        let (history, mut violations) = match judged {
            Ok((history, violations)) => {
                (history, violations.iter().map(ToString::to_string).collect())
            }
            Err(reason) => (History::default(), vec![format!("the round broke: {reason}")]),
        };
        let sums = Sums::of(&history, violations.len());
        println!("{store}, seed {seed}: {sums}, {:.1} s", began.elapsed().as_secs_f64());
        if !violations.is_empty() || self.arguments.keep {
            let kept = self.keep(store, seed, &history, folder.path());
            println!("    the history and the logs are in {}", kept.display());
        }
        let more = violations.len().saturating_sub(20);
        violations.truncate(20);
        violations.iter().for_each(|violation| println!("    VIOLATION: {violation}"));
        if more > 0 {
            println!("    and {more} more");
        }
        if !violations.is_empty() {
            println!("    to see it again: {}", self.again(store, seed));
        }
        sums
    }

    /// Runs a round and judges it. It is an error if the round itself broke.
    async fn judged(
        &mut self,
        case: Case<'_>,
        folder: &Path,
    ) -> Result<(History, Vec<Violation>), String> {
        let running = Box::pin(self.history(case, folder));
        let history = tokio::time::timeout(ROUND, running).await;
        let history = history.unwrap_or_else(|_| Err(format!("not done after {ROUND:?}")))?;
        let violations = checker::check(&history);
        Ok((history, violations))
    }

    async fn history(&mut self, case: Case<'_>, folder: &Path) -> Result<History, String> {
        let Case { store, seed, planted, fault } = case;
        let database = match store {
            Store::Sqlite => Database::Sqlite(folder.join("events.db")),
            Store::Postgres => self.postgres().await?,
        };
        let mut kinds = Kind::of(store);
        kinds.retain(|kind| self.can_fail || *kind != Kind::FsyncFails);
        kinds.retain(|kind| fault.is_none_or(|only| only == *kind));
        if kinds.is_empty() {
            return Err("this machine lacks what breaks here".to_owned());
        }
        Round::run(seed, database, &kinds, folder, planted).await
    }

    /// A database on this worker's server, or on a new one if a fault broke that.
    async fn postgres(&mut self) -> Result<Database, String> {
        if let Some(server) = &self.server
            && let Ok(database) = Database::on(Arc::clone(server)).await
        {
            return Ok(database);
        }
        // Flushing must be real, and so must be what happens when it fails.
        let starting = spawn_blocking(|| Server::start("-c shared_buffers=64MB"));
        let server = Arc::new(starting.await.map_err(|error| error.to_string())?);
        self.server = Some(Arc::clone(&server));
        Database::on(server).await.map_err(|error| error.to_string())
    }

    /// Keeps what tells how a round went.
    fn keep(&self, store: Store, seed: u64, history: &History, folder: &Path) -> PathBuf {
        let name = format!("{store}-{seed}").to_lowercase();
        let kept = Path::new(env!("CARGO_TARGET_TMPDIR")).join("torture").join(name);
        std::fs::create_dir_all(&kept).expect("folder");
        journal::write(history, &kept.join("history.jsonl")).expect("write");
        for entry in std::fs::read_dir(folder).expect("folder").flatten() {
            if entry.path().extension().is_some_and(|extension| extension == "log") {
                std::fs::copy(entry.path(), kept.join(entry.file_name())).expect("copy");
            }
        }
        kept
    }

    /// The command that runs a round again.
    fn again(&self, store: Store, seed: u64) -> String {
        let release = if cfg!(debug_assertions) { "" } else { "--release " };
        let store = match store {
            Store::Postgres => "postgres",
            Store::Sqlite => "sqlite",
        };
        let planted = self.arguments.planted.as_ref();
        let planted = planted.map(|name| format!(" --planted {name}")).unwrap_or_default();
        format!(
            "cargo test {release}--test {NAME} -- --store {store} --seed {seed} --rounds 1{planted}"
        )
    }
}
