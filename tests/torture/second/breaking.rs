//! The faults of a round. All are healed at its end.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use fastrand::Rng;
use tokio::time::{Instant, sleep};

use super::{planned::MARK, recorder::Recorder, service::Service};
use crate::{
    Store,
    database::Database,
    proxy::{Cut, Trap},
};

/// A kind of fault, named as in reports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    Kill,
    Stop,
    Terminate,
    Cancel,
    CutCommits,
}

impl Kind {
    pub fn name(self) -> &'static str {
        match self {
            Self::Kill => "service killed",
            Self::Stop => "service stopped by SIGTERM",
            Self::Terminate => "all backends terminated",
            Self::Cancel => "all statements cancelled",
            Self::CutCommits => "connection cut at a commit",
        }
    }

    fn of(store: Store) -> &'static [Self] {
        match store {
            Store::Postgres => {
                &[Self::Kill, Self::Stop, Self::Terminate, Self::Cancel, Self::CutCommits]
            }
            Store::Sqlite => &[Self::Kill, Self::Stop],
        }
    }
}

/// Number of faults of each kind.
pub type Struck = BTreeMap<Kind, usize>;

/// The targets of faults.
pub struct Target {
    pub database: Arc<Database>,
    pub services: Arc<[Service]>,
    pub recorder: Arc<Recorder>,
}

/// Runs one fault after another for a duration.
pub async fn run(target: Target, store: Store, lasting: Duration, mut rng: Rng) -> Struck {
    let mut struck = Struck::new();
    let deadline = Instant::now() + lasting;
    // A few kinds per round, so that some rounds have only one.
    let mut kinds = Kind::of(store).to_vec();
    rng.shuffle(&mut kinds);
    kinds.truncate(rng.usize(1..=kinds.len()));
    sleep(Duration::from_millis(rng.u64(100..600))).await;
    while Instant::now() < deadline {
        let kind = kinds[rng.usize(..kinds.len())];
        match strike(&target, kind, &mut rng).await {
            Ok(times) => *struck.entry(kind).or_default() += times,
            Err(reason) => target.recorder.fault(reason),
        }
        sleep(Duration::from_millis(rng.u64(50..500))).await;
    }
    struck
}

/// Returns the number of faults.
async fn strike(target: &Target, kind: Kind, rng: &mut Rng) -> Result<usize, String> {
    let service = &target.services[rng.usize(..target.services.len())];
    let pause = Duration::from_millis(rng.u64(..150));
    match kind {
        Kind::Kill => service.kill_and_restart(pause).await.map(|()| 1),
        Kind::Stop => service.stop_and_restart(pause).await.map(|()| 1),
        Kind::Terminate => storm(target, "pg_terminate_backend", rng).await,
        Kind::Cancel => storm(target, "pg_cancel_backend", rng).await,
        Kind::CutCommits => Ok(cut_commits(target, rng).await),
    }
}

/// Repeatedly terminates all sessions of the services, or cancels their statements.
async fn storm(target: &Target, function: &str, rng: &mut Rng) -> Result<usize, String> {
    let sql =
        format!("SELECT {function}(pid) FROM pg_stat_activity WHERE usename = current_database()");
    let session = target.database.administrator().await?;
    let mut struck = 0;
    for _ in 0..rng.usize(1..25) {
        let ended = session.query(&sql, &[]).await.map_err(|error| error.to_string())?;
        struck += usize::from(!ended.is_empty());
        sleep(Duration::from_millis(rng.u64(..40))).await;
    }
    Ok(struck)
}

/// Cuts connections during a commit, mostly so that only the response is lost.
async fn cut_commits(target: &Target, rng: &mut Rng) -> usize {
    let markers = [b"COMMIT".as_slice(), MARK.as_bytes()];
    let cuts = [Cut::After, Cut::After, Cut::After, Cut::Before, Cut::During];
    let mut struck = 0;
    let proxies = || target.services.iter().filter_map(|service| service.proxy.as_ref());
    for _ in 0..rng.usize(2..12) {
        for proxy in proxies() {
            let marker = markers[rng.usize(..markers.len())];
            let cut = cuts[rng.usize(..cuts.len())];
            proxy.set_trap(Some(Trap::message(marker, cut)));
        }
        sleep(Duration::from_millis(rng.u64(10..100))).await;
        struck += proxies().filter(|proxy| proxy.is_sprung()).count();
        proxies().for_each(|proxy| proxy.set_trap(None));
    }
    struck
}
