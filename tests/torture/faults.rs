//! The faults of a round and their times, which the seed determines. Each fault is healed before
//! the round settles.

use std::{sync::Arc, time::Duration};

use fastrand::Rng;
use tokio::{task::JoinSet, time::sleep_until};

use crate::{
    Store,
    database::Database,
    history::{Fault, Moment},
    round::Round,
};

mod clock;
mod database;
mod disk;
mod greedy;
mod identity;
mod network;
mod process;
mod row;

use disk::SmallDisk;

/// A kind of fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    KillInstance,
    StopInstance,
    PauseInstance,
    PauseBackend,
    CrashDatabase,
    KillBackend,
    TerminateBackends,
    CutCommit,
    CutAnywhere,
    Stall,
    SlowNetwork,
    LockTable,
    FewConnections,
    FsyncFails,
    FewFiles,
    FileLimit,
    DiskFull,
    SwapStore,
    DamageRow,
    JumpClock,
    GreedyClient,
    /// Has separate rounds.
    RestoreStore,
}

impl Kind {
    const ALL: [Self; 21] = [
        Self::KillInstance,
        Self::StopInstance,
        Self::PauseInstance,
        Self::PauseBackend,
        Self::CrashDatabase,
        Self::KillBackend,
        Self::TerminateBackends,
        Self::CutCommit,
        Self::CutAnywhere,
        Self::Stall,
        Self::SlowNetwork,
        Self::LockTable,
        Self::FewConnections,
        Self::FsyncFails,
        Self::FewFiles,
        Self::FileLimit,
        Self::DiskFull,
        Self::SwapStore,
        Self::DamageRow,
        Self::JumpClock,
        Self::GreedyClient,
    ];

    /// The kinds that this machine supports. Prints the others.
    pub fn possible() -> Vec<Self> {
        let mut kinds = Self::ALL.to_vec();
        let mut without = |needed: &str, kind: &[Self]| {
            let names: Vec<&str> = kind.iter().map(|kind| kind.name()).collect();
            println!("without the fault \"{}\": {needed} here", names.join("\", \""));
            kinds.retain(|other| !kind.contains(other));
        };
        if !disk::can_fail() {
            without("strace is missing or may not attach", &[Self::FsyncFails]);
        }
        if !SmallDisk::can_be_made() {
            without("nothing can be mounted", &[Self::DiskFull]);
        }
        if !process::can_be_limited() {
            without("prlimit is missing", &[Self::FewFiles, Self::FileLimit]);
        }
        kinds
    }

    /// Whether it applies to a store.
    pub fn befalls(self, store: Store) -> bool {
        match store {
            Store::Postgres => !matches!(self, Self::FileLimit | Self::DiskFull),
            Store::Sqlite => matches!(
                self,
                Self::KillInstance
                    | Self::StopInstance
                    | Self::PauseInstance
                    | Self::LockTable
                    | Self::FsyncFails
                    | Self::FewFiles
                    | Self::FileLimit
                    | Self::DiskFull
                    | Self::SwapStore
                    | Self::DamageRow
                    | Self::GreedyClient
            ),
        }
    }

    /// Its name in reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::KillInstance => "instance killed",
            Self::StopInstance => "instance stopped by SIGTERM",
            Self::PauseInstance => "instance paused",
            Self::PauseBackend => "database backend paused",
            Self::CrashDatabase => "database crashed",
            Self::KillBackend => "database backend killed",
            Self::TerminateBackends => "all backends terminated",
            Self::CutCommit => "connection cut at a commit",
            Self::CutAnywhere => "connection cut at any byte",
            Self::Stall => "network stalled",
            Self::SlowNetwork => "network slow and sliced",
            Self::LockTable => "table locked",
            Self::FewConnections => "few connections",
            Self::FsyncFails => "fsync fails",
            Self::FewFiles => "no more open files",
            Self::FileLimit => "files may not grow",
            Self::DiskFull => "disk full",
            Self::SwapStore => "store swapped",
            Self::DamageRow => "stored row damaged",
            Self::JumpClock => "clock of the database jumps",
            Self::GreedyClient => "client takes all it can",
            Self::RestoreStore => "store restored from a backup",
        }
    }

    /// Its relative frequency.
    fn weight(self) -> u32 {
        match self {
            Self::KillInstance => 20,
            Self::CutCommit => 15,
            Self::StopInstance | Self::CrashDatabase | Self::TerminateBackends | Self::Stall => 10,
            Self::DiskFull | Self::FileLimit => 8,
            Self::PauseInstance | Self::PauseBackend | Self::KillBackend => 5,
            Self::CutAnywhere | Self::SlowNetwork | Self::LockTable | Self::FewConnections => 5,
            Self::SwapStore | Self::DamageRow | Self::JumpClock | Self::GreedyClient => 5,
            Self::FsyncFails | Self::FewFiles => 4,
            Self::RestoreStore => 0,
        }
    }
}

/// A planned fault.
#[derive(Debug, Clone, Copy)]
pub struct Planned {
    kind: Kind,
    at: Moment,
    /// Its duration, if it has one.
    lasting: Duration,
    /// The affected instance.
    instance: usize,
}

/// Chooses one to three faults.
pub fn schedule(rng: &mut Rng, kinds: &[Kind]) -> Vec<Planned> {
    let mut planned: Vec<Planned> = Vec::new();
    let first = rng.usize(..3);
    // At most one of a kind: two would heal each other.
    let mut kinds = kinds.to_vec();
    for number in 0..rng.usize(1..=3).min(kinds.len()) {
        let kind = choose(rng, &kinds);
        kinds.retain(|other| *other != kind);
        planned.push(Planned {
            kind,
            at: Duration::from_millis(rng.u64(800..3_800)),
            lasting: Duration::from_millis(rng.u64(1_000..4_000)),
            // Faults affect different instances while there are others: a paused instance does not
            // shut down in time.
            instance: first + number,
        });
    }
    planned
}

fn choose(rng: &mut Rng, kinds: &[Kind]) -> Kind {
    let all: u32 = kinds.iter().map(|kind| kind.weight()).sum();
    let mut left = rng.u32(..all);
    let chosen = kinds.iter().find(|kind| {
        let is_it = left < kind.weight();
        left = left.saturating_sub(kind.weight());
        is_it
    });
    *chosen.expect("some kind")
}

/// A separate disk for a file, for the fault of a full disk. Exists as long as the returned guard.
pub fn prepare(planned: &[Planned], database: &Database) -> Result<Option<SmallDisk>, String> {
    let fills = planned.iter().any(|fault| fault.kind == Kind::DiskFull);
    match (fills, database.folder()) {
        (true, Some(folder)) => SmallDisk::mount(folder).map(Some),
        _ => Ok(None),
    }
}

/// Runs faults at their times. Returns when all are healed.
pub fn start(round: &Arc<Round>, rng: &mut Rng, planned: Vec<Planned>) -> JoinSet<()> {
    let mut breaking = JoinSet::new();
    for fault in planned {
        let (round, mut rng) = (Arc::clone(round), rng.fork());
        breaking.spawn(async move {
            sleep_until(round.recorder.instant(fault.at)).await;
            let began = round.recorder.now();
            let happened = happen(&round, fault, &mut rng).await;
            let ended = round.recorder.now();
            match happened {
                Ok(()) => round.recorder.fault(Fault { kind: fault.kind.name(), began, ended }),
                // Another fault came first. Liveness is checked at the end.
                Err(reason) => eprintln!("    {} did not happen: {reason}", fault.kind.name()),
            }
        });
    }
    breaking
}

async fn happen(round: &Round, fault: Planned, rng: &mut Rng) -> Result<(), String> {
    let Planned { kind, lasting, instance, .. } = fault;
    let instance = &*round.cluster.instances[instance % round.cluster.size()];
    let pause = Duration::from_millis(rng.u64(..500));
    match kind {
        Kind::KillInstance => instance.kill_and_restart(&round.recorder, pause).await,
        Kind::StopInstance => instance.stop_and_restart(&round.recorder, pause).await,
        Kind::PauseInstance => process::pause(instance.pid(), lasting).await,
        Kind::FewFiles => process::few_files(instance.pid(), lasting).await,
        Kind::PauseBackend => {
            let backends = round.database.backends().await?;
            process::pause(*rng.choice(&backends).ok_or("no backend")?, lasting).await
        }
        Kind::CrashDatabase => database::crash(&round.database, rng.bool()).await,
        Kind::KillBackend => {
            let backends = round.database.backends().await?;
            process::kill(*rng.choice(&backends).ok_or("no backend")?)
        }
        Kind::TerminateBackends => database::terminate(&round.database).await,
        Kind::LockTable => database::lock(&round.database, lasting, rng).await,
        Kind::FewConnections => database::few_connections(&round.database, lasting).await,
        Kind::CutCommit => network::cut_commits(round, lasting, rng).await,
        Kind::CutAnywhere => network::cut_anywhere(round, lasting, rng).await,
        Kind::Stall => network::stall(instance, lasting + Duration::from_secs(2)).await,
        Kind::SlowNetwork => network::slow(instance, lasting, rng).await,
        Kind::FsyncFails => match round.database.is_shared() {
            true => disk::fail(&round.database.backends().await?, lasting).await,
            false => disk::fail(&[instance.pid()], lasting).await,
        },
        Kind::FileLimit => process::file_limit(instance.pid(), lasting).await,
        Kind::DiskFull => disk::fill(&round.database, lasting).await,
        Kind::SwapStore => identity::swap(round, lasting).await,
        Kind::DamageRow => row::damage(round, instance, rng).await,
        Kind::JumpClock => {
            let starting = &*round.cluster.instances[(instance.number + 1) % round.cluster.size()];
            clock::jump(round, instance, starting, lasting).await
        }
        Kind::GreedyClient => greedy::take_all(round, instance, lasting).await,
        Kind::RestoreStore => Err("it has rounds of its own".to_owned()),
    }
}
