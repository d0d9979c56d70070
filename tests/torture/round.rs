//! One round: a database, a cluster on it, load and faults by a seed, and in the end a history.

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
    producers, readers,
    recorder::{Recorder, Waiting},
    settle, workload,
};

/// How long everybody may take together once all is healed, however steadily they go on.
const END: Duration = Duration::from_secs(120);

/// What everybody in a round needs.
pub struct Round {
    pub cluster: Cluster,
    pub database: Database,
    pub recorder: Recorder,
    /// Told when all is published: readers read to the end, and then they are done.
    pub published: CancellationToken,
    /// Told when it took too long: everybody leaves.
    pub given_up: CancellationToken,
}

impl Round {
    /// Runs a round to its end. The seed decides what is sent and what breaks when; processes and
    /// networks do the rest as they like.
    pub async fn run(
        seed: u64,
        database: Database,
        kinds: &[Kind],
        folder: &Path,
        planted: Option<&str>,
    ) -> Result<History, String> {
        let mut rng = Rng::with_seed(seed);
        let plan = workload::plan(&mut rng);
        let faults = faults::schedule(&mut rng, kinds);

        let _disk = faults::prepare(&faults, &database)?;
        let cluster = Cluster::start(&database, folder, planted).await?;
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

    /// Waits for all of them who still work on something, and stops everybody when none of them has
    /// got anything for so long, or when it takes too long altogether. On a slow machine all takes
    /// its time; nothing may stand still.
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
