//! The torture test: runs real services under load while processes, disks and networks fail, and
//! then checks that each event was stored, counted and delivered exactly once.
//!
//! A seed decides what is sent and what breaks when. Processes, disks and networks are real, so their
//! interleaving is not repeated to the letter: the same seed makes the same kind of trouble again.
//!
//! With `--mutants` it tests itself, on services with deliberate bugs.

// A test has no public items.
#![allow(unreachable_pub)]

use std::{
    collections::BTreeMap,
    fmt,
    process::ExitCode,
    sync::{Arc, Mutex},
    time::Instant,
};

use clap::Parser;
use testkit::{checker, history, http, proxy};
use tokio::task::{JoinSet, spawn_blocking};

use crate::{
    arguments::{Arguments, Checker},
    faults::Kind,
    mutants::serve::Serve,
    report::Sums,
    worker::Worker,
};

mod arguments;
mod cluster;
mod database;
mod faults;
mod footprint;
mod journal;
mod mutants;
mod mutation;
mod outcome;
mod producers;
mod program;
mod readers;
mod recorder;
mod report;
mod restore;
mod round;
mod second;
mod secrets;
mod settle;
mod worker;
mod workload;

/// A store under test.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Store {
    /// PostgreSQL, shared by several instances.
    Postgres,
    /// A SQLite file, with one instance.
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

/// The command line of this program, without arguments.
fn cargo() -> String {
    let release = if cfg!(debug_assertions) { "" } else { "--release " };
    format!("cargo test {release}--test {NAME} --")
}

#[tokio::main]
async fn main() -> anyhow::Result<ExitCode> {
    if let Some(serve) = Serve::requested() {
        serve.run().await?;
        return Ok(ExitCode::SUCCESS);
    }
    let arguments = Arguments::parse();
    if !arguments.mean(NAME) {
        println!("{NAME}: not among the tests that are asked for");
        return Ok(ExitCode::SUCCESS);
    }
    if arguments.only_lists() {
        println!("{NAME}: test");
        return Ok(ExitCode::SUCCESS);
    }
    mutants::build(&arguments.chosen_mutants())?;
    let arguments = Arc::new(arguments);
    let is_clean = match arguments.mutants {
        true => mutation::test(arguments).await,
        false => torture(arguments).await,
    };
    Ok(if is_clean { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Runs all rounds. Returns whether nothing was found.
async fn torture(arguments: Arc<Arguments>) -> bool {
    let mut is_clean = true;
    if arguments.wants(Checker::First) {
        is_clean &= first(Arc::clone(&arguments)).await;
    }
    if arguments.wants(Checker::Second) {
        is_clean &= second::run(&arguments).await;
    }
    is_clean
}

/// The faults that this machine can make.
async fn possible_faults() -> Arc<[Kind]> {
    spawn_blocking(Kind::possible).await.expect("no panic").into()
}

/// Runs all rounds of the first checker and says what came of them. Returns whether nothing was found.
async fn first(arguments: Arc<Arguments>) -> bool {
    let possible = possible_faults().await;
    let began = Instant::now();
    let rounds = Arc::new(Mutex::new(arguments.rounds()));
    let mut working = JoinSet::new();
    for _ in 0..arguments.jobs {
        let worker = Worker::new(&arguments, &possible);
        working.spawn(worker.run(Arc::clone(&rounds)));
    }
    let mut sums: BTreeMap<Store, Sums> = BTreeMap::new();
    for parts in working.join_all().await {
        for (store, part) in parts {
            sums.entry(store).or_default().add(&part);
        }
    }
    for (store, sums) in &sums {
        let Sums { rounds, unharmed, .. } = sums;
        println!("{store}: {rounds} rounds, {unharmed} of them without a fault, {sums}");
    }
    if arguments.gate {
        let command: Vec<String> = std::env::args().skip(1).collect();
        let command = format!("{} {}", cargo(), command.join(" "));
        println!("\n{}", report::table(&sums, &command, began.elapsed()));
    }
    sums.values().all(|sums| sums.violations == 0)
}
