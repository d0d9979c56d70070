//! Workers: run rounds, judge them, print the results, and keep the files of failed rounds.

use std::{
    collections::{BTreeMap, VecDeque},
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use testkit::postgres::Server;
use tokio::task::spawn_blocking;

use crate::{
    Store,
    arguments::Arguments,
    cargo,
    checker::{self, Violation},
    database::Database,
    faults::Kind,
    history::History,
    journal,
    mutants::Mutant,
    report::Sums,
    restore,
    round::Round,
    workload::PRODUCERS,
};

/// Timeout of a round. Longer than the timeout for recovery, which the rules judge.
const ROUND: Duration = Duration::from_secs(400);

/// Rounds whose seed is a multiple of this restore the store.
const RESTORES: u64 = 10;

/// The minimum of a round, which only a stuck round does not reach.
const ENOUGH: checker::Enough =
    checker::Enough { producers: PRODUCERS, readers: 3, listings: 1, samples: 10 };

/// A planned round.
#[derive(Debug, Clone, Copy)]
pub struct Case {
    pub store: Store,
    pub seed: u64,
    /// A mutant instead of the service.
    pub mutant: Option<&'static Mutant>,
    /// What breaks, if nothing else is to.
    pub fault: Option<Kind>,
}

impl Case {
    /// Whether the store is restored from a backup in it, for which all else is left alone: in every
    /// tenth round, or if nothing else is to happen.
    fn is_with_restore(&self) -> bool {
        match self.fault {
            Some(fault) => fault == Kind::RestoreStore,
            None => self.seed.is_multiple_of(RESTORES),
        }
    }
}

/// Runs one round after another. All rounds on PostgreSQL share a server.
pub struct Worker {
    arguments: Arc<Arguments>,
    /// The faults that this machine supports.
    possible: Arc<[Kind]>,
    server: Option<Arc<Server>>,
    sums: BTreeMap<Store, Sums>,
}

impl Worker {
    pub fn new(arguments: &Arc<Arguments>, possible: &Arc<[Kind]>) -> Self {
        let (arguments, sums) = (Arc::clone(arguments), BTreeMap::new());
        Self { arguments, possible: Arc::clone(possible), server: None, sums }
    }

    pub async fn run(
        mut self,
        rounds: Arc<Mutex<VecDeque<(Store, u64)>>>,
    ) -> BTreeMap<Store, Sums> {
        loop {
            let next = rounds.lock().expect("no panic").pop_front();
            let Some((store, seed)) = next else { return self.sums };
            let part = self.round(store, seed).await;
            self.sums.entry(store).or_default().add(&part);
        }
    }

    /// Runs a round, judges it, and prints the result.
    async fn round(&mut self, store: Store, seed: u64) -> Sums {
        let began = Instant::now();
        let folder = tempfile::Builder::new().prefix("torture-").tempdir().expect("folder");
        let case = Case { store, seed, mutant: self.arguments.mutant, fault: None };
        let judged = self.judged(case, folder.path()).await;
        let (history, mut violations) = match judged {
            Ok((history, violations)) => {
                (history, violations.iter().map(ToString::to_string).collect())
            }
            Err(reason) => (History::default(), vec![format!("the round failed: {reason}")]),
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
            println!("    reproduce with: {}", self.again(store, seed));
        }
        sums
    }

    /// Runs a round and judges it. Fails if the round itself failed.
    pub async fn judged(
        &mut self,
        case: Case,
        folder: &Path,
    ) -> Result<(History, Vec<Violation>), String> {
        let running = async {
            if case.is_with_restore() {
                let database = self.database(case.store, folder).await?;
                return restore::run(case.seed, database, folder, case.mutant).await;
            }
            let history = self.history(case, folder).await?;
            let mut violations = checker::check(&history);
            violations.extend(checker::check_extent(&history, ENOUGH));
            Ok((history, violations))
        };
        let judged = tokio::time::timeout(ROUND, Box::pin(running)).await;
        judged.unwrap_or_else(|_| Err(format!("not done after {ROUND:?}")))
    }

    async fn database(&mut self, store: Store, folder: &Path) -> Result<Database, String> {
        match store {
            Store::Sqlite => Ok(Database::Sqlite(folder.join("disk/events.db"))),
            Store::Postgres => self.postgres().await,
        }
    }

    async fn history(&mut self, case: Case, folder: &Path) -> Result<History, String> {
        let Case { store, seed, mutant, fault } = case;
        let database = self.database(store, folder).await?;
        let mut kinds = self.possible.to_vec();
        kinds.retain(|kind| kind.befalls(store) && fault.is_none_or(|only| only == *kind));
        if kinds.is_empty() {
            return Err("this machine cannot make the fault".to_owned());
        }
        Round::run(seed, database, &kinds, folder, mutant).await
    }

    /// Creates a database on this worker's server, or on a new one if a fault broke the server.
    async fn postgres(&mut self) -> Result<Database, String> {
        if let Some(server) = &self.server
            && let Ok(database) = Database::on(Arc::clone(server)).await
        {
            return Ok(database);
        }
        // Flushes must be real, and so must their failures.
        let starting = spawn_blocking(|| Server::start("-c shared_buffers=64MB"));
        let server = Arc::new(starting.await.map_err(|error| error.to_string())?);
        self.server = Some(Arc::clone(&server));
        Database::on(server).await.map_err(|error| error.to_string())
    }

    /// Keeps the history and the logs of a round.
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
        let store = match store {
            Store::Postgres => "postgres",
            Store::Sqlite => "sqlite",
        };
        let mutant = self.arguments.mutant.map(|mutant| format!(" --mutant {}", mutant.name));
        let mutant = mutant.unwrap_or_default();
        format!("{} --only first --store {store} --seed {seed} --rounds 1{mutant}", cargo())
    }
}
