//! The end of a round: waits until all faults are healed and all tasks have finished or are stuck,
//! and then checks the store directly.

use std::{collections::BTreeSet, process::Command, sync::Arc, time::Duration};

use event_aggregator::testing::limits::MAX_READ_CONNECTIONS;
use tokio::{
    task::{JoinSet, spawn_blocking},
    time::{Instant, sleep, timeout},
};

use crate::{
    cluster::Instance, footprint, history::Sample, http, program::PROGRAM, readers,
    recorder::Waiting, round::Round, secrets,
};

/// Maximum time without progress while tasks wait: a service retries within two seconds after its
/// store recovers.
const ALIVE: Duration = Duration::from_secs(15);

/// Files and connections that a process may have open at the end, beyond those at its start:
/// sessions of reads and lanes, and connections of clients. On SQLite, readers have two files each.
const KEPT_FILES: usize = 2 * MAX_READ_CONNECTIONS + 8;

/// Maximum peak memory of a process in KiB.
const MEMORY: u64 = 512 << 10;

pub async fn settle(round: &Arc<Round>, producing: JoinSet<()>, reading: JoinSet<()>) {
    let recorder = &round.recorder;
    for instance in &round.cluster.instances {
        if let Err(reason) = instance.start().await {
            recorder.stuck(reason);
        }
    }
    recorder.history().settled.healed = recorder.now();
    if !round.wait_or_give_up(Waiting::Producers, producing, ALIVE).await {
        recorder
            .stuck(format!("after all faults were healed, producers got no answer for {ALIVE:?}"));
    }
    let last = quiet(round).await;
    round.published.cancel();
    if !round.wait_or_give_up(Waiting::Readers, reading, ALIVE).await {
        recorder
            .stuck(format!("after the last event, readers that are behind got none for {ALIVE:?}"));
    }
    for instance in &round.cluster.instances {
        lets_go(round, instance).await;
    }

    let (rows, heads) = (round.database.rows().await, round.database.heads().await);
    let verified = verify(round.database.url(None)).await;
    for instance in &round.cluster.instances {
        instance.stop(recorder).await;
    }
    for instance in &round.cluster.instances {
        look_through_log(round, instance);
    }

    let mut history = recorder.history();
    let settled = &mut history.settled;
    if let Some(last) = last {
        settled.totals = last.totals;
        settled.topics = last.topics;
    }
    match rows {
        Ok(rows) => settled.rows = rows,
        Err(reason) => settled.stuck.push(format!("the rows cannot be read: {reason}")),
    }
    match heads {
        Ok(heads) => settled.heads = heads,
        Err(reason) => settled.stuck.push(format!("the lanes cannot be read: {reason}")),
    }
    settled.differences = verified;
}

/// Waits until the system is idle: all queues are empty, there are no writes, and all instances
/// return the same counters. Returns the last counters.
async fn quiet(round: &Round) -> Option<Sample> {
    let mut deadline = Instant::now() + ALIVE;
    let mut before = None;
    loop {
        let (state, last) = state(round).await;
        let totals = last.as_ref().map(|last| last.totals);
        if state.is_empty() && totals.is_some() && before == totals {
            return last;
        }
        if Instant::now() > deadline {
            state.into_iter().for_each(|what| round.recorder.stuck(what));
            return last;
        }
        if before != totals {
            deadline = Instant::now() + ALIVE;
            before = totals;
        }
        sleep(Duration::from_millis(100)).await;
    }
}

/// What is not idle, and the counters.
async fn state(round: &Round) -> (Vec<String>, Option<Sample>) {
    let mut restless = Vec::new();
    match round.database.writing().await {
        Ok(0) => (),
        Ok(sessions) => restless.push(format!("{sessions} sessions are in a transaction")),
        Err(reason) => restless.push(format!("the database does not answer: {reason}")),
    }
    let mut last = None;
    for number in 0..round.cluster.size() {
        if !is_ready(round, number).await {
            restless.push(format!("instance {number} is not ready"));
        }
        if !is_queue_empty(round, number).await {
            restless.push(format!("instance {number} has events in its queue, or does not answer"));
        }
        last = readers::sample(round, number).await;
        if last.is_none() {
            restless.push(format!("instance {number} does not tell its counters"));
        }
    }
    (restless, last)
}

async fn is_ready(round: &Round, instance: usize) -> bool {
    let asking = http::get(round.cluster.address(instance), "/readyz");
    matches!(timeout(Duration::from_secs(2), asking).await, Ok(Ok(answer)) if answer.status == 200)
}

async fn is_queue_empty(round: &Round, instance: usize) -> bool {
    let asking = http::get(round.cluster.address(instance), "/metrics");
    match timeout(Duration::from_secs(2), asking).await {
        Ok(Ok(answer)) => {
            answer.body.lines().any(|line| line.trim() == "event_aggregator_queue_bytes 0")
        }
        _ => false,
    }
}

/// Waits until an instance has released the resources of disconnected clients, and checks its peak
/// usage.
async fn lets_go(round: &Round, instance: &Instance) {
    let (number, pid) = (instance.number, instance.pid());
    let bound = instance.first_files() + KEPT_FILES;
    let deadline = Instant::now() + ALIVE;
    loop {
        match footprint::open_files(pid) {
            Ok(files) if files <= bound => break,
            Ok(files) if Instant::now() > deadline => {
                let what = format!(
                    "instance {number} has {files} files open, and began with {}",
                    instance.first_files()
                );
                round.recorder.stuck(what);
                break;
            }
            Ok(_) => sleep(Duration::from_millis(100)).await,
            Err(error) => {
                round.recorder.stuck(format!("instance {number} does not run: {error}"));
                return;
            }
        }
    }
    match footprint::peak_memory(pid) {
        Ok(peak) if peak <= MEMORY => (),
        Ok(peak) => round.recorder.stuck(format!("instance {number} took {peak} KiB of memory")),
        Err(error) => round.recorder.stuck(format!("instance {number} does not run: {error}")),
    }
}

/// The differences that `verify` reports.
async fn verify(url: String) -> Vec<String> {
    let mut command = Command::new(PROGRAM);
    command.args(["verify", "--database-url", &url, "--output", "json"]);
    let output = spawn_blocking(move || command.output()).await.expect("no panic");
    let output = match output {
        Ok(output) if output.status.success() => return Vec::new(),
        Ok(output) => output,
        Err(error) => return vec![format!("verify: {error}")],
    };
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
    match report["differences"].as_array() {
        Some(differences) if !differences.is_empty() => {
            differences.iter().map(ToString::to_string).collect()
        }
        _ => vec![format!("verify: {}", String::from_utf8_lossy(&output.stderr))],
    }
}

/// Checks the logs for panics and secrets.
fn look_through_log(round: &Round, instance: &Instance) {
    let log = std::fs::read(&instance.log).unwrap_or_default();
    let log = String::from_utf8_lossy(&log);
    let bad = |line: &&str| line.contains("panicked") || secrets::are_in(line);
    // Report each line once.
    let lines: BTreeSet<&str> = log.lines().filter(bad).take(20).collect();
    for line in lines {
        round.recorder.dirt(format!("in the log of instance {}: {line}", instance.number));
    }
}
