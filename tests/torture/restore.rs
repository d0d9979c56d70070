//! Rounds with a restore: the store is restored from a backup while subscribers have later cursors.
//! Events that were stored after the backup are lost, so the rules of other rounds do not apply.
//! These rounds check that no subscriber continues unnoticed.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    time::Duration,
};

use event_aggregator::proto::v1::{PublishRequest, PublishStatus};
use fastrand::Rng;
use tokio::time::{Instant, sleep, timeout};

use self::{backup::Backup, subscriber::Ended};
use crate::{
    checker::{Rule, Violation},
    cluster::{Client, Cluster},
    database::Database,
    faults::Kind,
    history::{Fault, History, Key},
    mutants::Mutant,
    recorder::Recorder,
    secrets, workload,
    workload::Item,
};

mod backup;
mod subscriber;

/// Timeout of every step.
const PATIENCE: Duration = Duration::from_secs(60);

/// The state of a round with a restore.
struct Restored {
    cluster: Cluster,
    database: Database,
    recorder: Recorder,
    rng: Rng,
    violations: Vec<Violation>,
    events: usize,
}

/// Runs a round with a restore and judges it.
pub async fn run(
    seed: u64,
    database: Database,
    folder: &Path,
    mutant: Option<&Mutant>,
) -> Result<(History, Vec<Violation>), String> {
    let cluster = Cluster::start(&database, folder, mutant).await?;
    let (recorder, rng) = (Recorder::start(), Rng::with_seed(seed));
    let mut round =
        Restored { cluster, database, recorder, rng, violations: Vec::new(), events: 0 };
    round.steps(folder).await?;
    let Restored { cluster, database, recorder, violations, .. } = round;
    for instance in &cluster.instances {
        instance.stop(&recorder).await;
    }
    drop(cluster);
    database.remove().await;
    let history = std::mem::take(&mut *recorder.history());
    Ok((history, violations))
}

impl Restored {
    async fn steps(&mut self, folder: &Path) -> Result<(), String> {
        let count = self.rng.usize(20..200);
        let kept = self.publish(count).await?;
        let early = self.read_all("beginning").await?;
        let live = self.rng.usize(..self.cluster.size());
        let live = tokio::spawn(subscriber::follow(self.cluster.channel(live)));

        let backup = Backup::of(&self.database, folder).await?;
        let count = self.rng.usize(1..60);
        let lost = self.publish(count).await?;
        let late = self.read_all("beginning").await?;

        let began = self.recorder.now();
        let is_live = self.rng.bool();
        self.restore(&backup, is_live).await?;
        let ended = self.recorder.now();
        self.recorder.fault(Fault { kind: Kind::RestoreStore.name(), began, ended });

        // As many events as were lost, fewer or more. Some are the lost ones, which producers send
        // again.
        let count = self.rng.usize(1..120);
        let mut after = self.publish(count).await?;
        let again: Vec<Item> = lost.into_iter().filter(|_| self.rng.bool()).collect();
        self.send(&again).await?;
        after.extend(again);

        self.judge_rows(&kept, &after).await?;
        self.judge_cursor_of_before(&early.cursor, &after).await?;
        self.judge_lost_cursor(&late.cursor).await?;
        match timeout(PATIENCE, live).await {
            Ok(Ok(Ended::Restored)) => (),
            Ok(Ok(Ended::Otherwise(how))) => self.violation(format!(
                "a subscriber that was reading during the restore was not refused: {how}"
            )),
            _ => self.violation("a subscriber that was reading during the restore goes on".into()),
        }
        Ok(())
    }

    /// Publishes a number of new events.
    async fn publish(&mut self, count: usize) -> Result<Vec<Item>, String> {
        let items: Vec<Item> = (0..count).map(|_| self.item()).collect();
        self.send(&items).await?;
        Ok(items)
    }

    fn item(&mut self) -> Item {
        self.events += 1;
        let (topic, number) = (workload::topic(&mut self.rng), self.events);
        let payload = format!("{{\"n\":{number},\"canary\":\"{}\"}}", secrets::PAYLOAD);
        Item::new(&topic, &format!("event-{number}"), "restore", payload)
    }

    /// Sends events until all are stored. Each must be new. There are no other faults, so outcomes
    /// are known, but services may need a moment after a restore.
    async fn send(&mut self, items: &[Item]) -> Result<(), String> {
        let began = Instant::now();
        for some in items.chunks(self.rng.usize(1..20)) {
            let events: Vec<_> = some.iter().map(Item::event).collect();
            let mut is_repeated = false;
            loop {
                let instance = self.rng.usize(..self.cluster.size());
                let mut client = Client::new(self.cluster.channel(instance));
                let request = PublishRequest { events: events.clone(), allow_partial: false };
                let answer = match timeout(PATIENCE, client.publish(request)).await {
                    Ok(Ok(response)) => response.into_inner(),
                    _ if began.elapsed() > PATIENCE => return Err("nothing is stored".to_owned()),
                    _ => {
                        is_repeated = true;
                        sleep(Duration::from_millis(50)).await;
                        continue;
                    }
                };
                for (item, result) in some.iter().zip(&answer.results) {
                    if result.status() != PublishStatus::Accepted && !is_repeated {
                        self.violation(format!("{} was answered {:?}", item.key, result.status()));
                    }
                }
                break;
            }
        }
        Ok(())
    }

    /// Restores the backup, under running services or while they are stopped.
    async fn restore(&mut self, backup: &Backup, is_live: bool) -> Result<(), String> {
        if is_live {
            return backup.restore(&self.database).await;
        }
        for instance in &self.cluster.instances {
            instance.stop(&self.recorder).await;
        }
        backup.restore(&self.database).await?;
        for instance in &self.cluster.instances {
            instance.start().await?;
        }
        Ok(())
    }

    /// Reads all events after a cursor.
    async fn read_all(&mut self, cursor: &str) -> Result<subscriber::Read, String> {
        let began = Instant::now();
        loop {
            let instance = self.rng.usize(..self.cluster.size());
            match timeout(PATIENCE, subscriber::read(self.cluster.channel(instance), cursor)).await
            {
                Ok(Ok(read)) => return Ok(read),
                Ok(Err(status)) if began.elapsed() > PATIENCE => return Err(status.to_string()),
                Err(late) => return Err(late.to_string()),
                Ok(Err(_)) => sleep(Duration::from_millis(50)).await,
            }
        }
    }

    /// Checks that the store has the events of the backup, and the events that were acknowledged
    /// after the restore.
    async fn judge_rows(&mut self, kept: &[Item], after: &[Item]) -> Result<(), String> {
        let stored: BTreeSet<Key> =
            self.database.rows().await?.into_iter().map(|row| row.key).collect();
        let sent: BTreeSet<Key> = kept.iter().chain(after).map(|item| item.key.clone()).collect();
        for key in sent.difference(&stored) {
            self.violation(format!("{key} was acknowledged and is not stored"));
        }
        for key in stored.difference(&sent) {
            self.violation(format!("{key} is stored although it was lost"));
        }
        Ok(())
    }

    /// Checks that a cursor from before the backup is valid, and delivers all events that were
    /// stored after the restore, once.
    async fn judge_cursor_of_before(&mut self, cursor: &str, after: &[Item]) -> Result<(), String> {
        let read = self.read_all(cursor).await?;
        let mut times: BTreeMap<Key, usize> =
            after.iter().map(|item| (item.key.clone(), 0)).collect();
        for key in read.keys {
            *times.entry(key).or_default() += 1;
        }
        for (key, times) in times.into_iter().filter(|(_, times)| *times != 1) {
            self.violation(format!("{key} came {times} times behind a cursor from before"));
        }
        Ok(())
    }

    /// Checks that every instance rejects a cursor from between the backup and the restore.
    async fn judge_lost_cursor(&mut self, cursor: &str) -> Result<(), String> {
        for instance in &self.cluster.instances.clone() {
            let channel = self.cluster.channel(instance.number);
            match timeout(PATIENCE, subscriber::read(channel, cursor)).await {
                Ok(Err(status)) if subscriber::is_restored(&status) => (),
                Ok(Err(status)) => {
                    self.violation(format!("a lost cursor was answered {status}"));
                }
                Ok(Ok(_)) | Err(_) => self.violation("a lost cursor was taken".to_owned()),
            }
        }
        Ok(())
    }

    fn violation(&mut self, what: String) {
        self.violations.push(Violation { rule: Rule::Cursor, what });
    }
}
