//! One round: creates a database and a cluster, runs load and faults by a seed, and returns the
//! history.

use std::{
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use fastrand::Rng;
use tokio::{task::JoinSet, time::timeout};
use tokio_util::sync::CancellationToken;

use crate::{
    cluster::Cluster,
    database::Database,
    faults::{self, Kind},
    history::History,
    mutants::Mutant,
    producers, readers,
    recorder::{Recorder, Waiting},
    settle, workload,
};

/// Maximum total time after all faults are healed, even with steady progress.
const END: Duration = Duration::from_secs(120);

/// The shared state of a round.
pub struct Round {
    pub cluster: Cluster,
    pub database: Database,
    pub recorder: Recorder,
    /// Cancelled when everything is published: readers read the rest and end.
    pub published: CancellationToken,
    /// Cancelled when the round is aborted.
    pub given_up: CancellationToken,
}

impl Round {
    /// Runs a round. The seed determines the workload and the faults; processes and networks are
    /// not deterministic.
    pub async fn run(
        seed: u64,
        database: Database,
        kinds: &[Kind],
        folder: &Path,
        mutant: Option<&Mutant>,
    ) -> Result<History, String> {
        let mut rng = Rng::with_seed(seed);
        let plan = workload::plan(&mut rng);
        let faults = faults::schedule(&mut rng, kinds);

        let _disk = faults::prepare(&faults, &database)?;
        let cluster = Cluster::start(&database, folder, mutant).await?;
        let round = Arc::new(Self {
            cluster,
            database,
            recorder: Recorder::start(),
            published: CancellationToken::new(),
            given_up: CancellationToken::new(),
        });
        let producing = producers::start(&round, &mut rng, plan);
        let reading = readers::start(&round, &mut rng);
        let breaking = faults::start(&round, &mut rng, faults);

        breaking.join_all().await;
        tokio::time::sleep_until(round.recorder.instant(workload::LOAD)).await;
        settle::settle(&round, producing, reading).await;
        let history = std::mem::take(&mut *round.recorder.history());
        match Arc::into_inner(round) {
            Some(round) => round.database.remove().await,
            None => return Err("somebody did not leave".to_owned()),
        }
        Ok(history)
    }

    /// Waits for all tasks, and aborts the round when none of them makes progress for too long, or
    /// when it takes too long in total. A slow machine may take its time, but everything must make
    /// progress.
    pub async fn wait_or_give_up(
        &self,
        who: Waiting,
        mut tasks: JoinSet<()>,
        limit: Duration,
    ) -> bool {
        let began = Instant::now();
        let (mut progress, mut latest) = (self.recorder.progress(who), began);
        loop {
            match timeout(Duration::from_millis(100), tasks.join_next()).await {
                Ok(Some(task)) => task.expect("no panic"),
                Ok(None) => return !self.given_up.is_cancelled(),
                Err(_) if began.elapsed() > END => self.given_up.cancel(),
                Err(_) if self.recorder.progress(who) != progress => {
                    progress = self.recorder.progress(who);
                    latest = Instant::now();
                }
                Err(_) if latest.elapsed() > limit => self.given_up.cancel(),
                Err(_) => (),
            }
        }
    }
}
