//! Compares the service with direct use of its databases. The measurements are interleaved in one
//! run, because machines are noisy: only ratios within a run are meaningful.
//!
//! The service is the release binary under the load of its own `bench` command. This program runs
//! the direct measurements, with data that was generated before. Each measurement starts with an
//! empty database.

#![allow(unreachable_pub)]

use std::collections::BTreeMap;

use clap::Parser;
use testkit::{
    bench::{self, Service},
    postgres::Database,
};

mod bare;
mod direct;
mod sqlite;

#[derive(Parser)]
struct Arguments {
    /// Rounds of all measurements
    #[arg(long, default_value_t = 5)]
    rounds: usize,

    /// Events per measurement of batches
    #[arg(long, default_value_t = 500_000)]
    events: usize,

    /// Run only measurements whose names contain this text
    #[arg(long, default_value = "")]
    only: String,

    /// Passed by cargo
    #[arg(long, hide = true)]
    bench: bool,

    /// Be the bare server
    #[arg(long, hide = true)]
    bare_server: bool,
}

const PROGRAM: &str = env!("CARGO_BIN_EXE_event-aggregator");

const STREAM: &str = "service: stream, batches of 500";
const STRUCT: &str = "service: stream, payloads as structures";
const AGAIN: &str = "service: stream, all duplicates";
const UNARY: &str = "service: unary, one event, 256 in flight";
const LONE: &str = "service: unary, one event, alone (p50 ms)";
const CALL: &str = "service: unary, one event (processor µs per call)";
const BARE: &str = "bare tonic: unary, one event (processor µs per call)";
const STATEMENT: &str = "direct: the same statement, batches of 4,096";
const NAIVE: &str = "direct: naive statement, batches of 4,096";
const ROWS: &str = "direct: one row a commit, 16 connections";
const ROW: &str = "direct: one row a commit, alone (p50 ms)";
const SQLITE: &str = "SQLite: service, stream, batches of 500";
const SQLITE_RAW: &str = "SQLite: direct, same schema, batches of 4,096";

/// What is compared with what.
const RATIOS: [(&str, &str); 9] = [
    (STREAM, STATEMENT),
    (STREAM, NAIVE),
    (STATEMENT, NAIVE),
    (STRUCT, STREAM),
    (AGAIN, STREAM),
    (UNARY, ROWS),
    (LONE, ROW),
    (CALL, BARE),
    (SQLITE, SQLITE_RAW),
];

/// What is measured; each round begins with another one, so that none always follows the same.
const ORDER: [&str; 11] =
    [STREAM, STATEMENT, NAIVE, STRUCT, UNARY, ROWS, LONE, ROW, BARE, SQLITE, SQLITE_RAW];

type Samples = BTreeMap<&'static str, Vec<f64>>;

#[tokio::main]
async fn main() {
    let arguments = Arguments::parse();
    if arguments.bare_server {
        return bare::serve().await;
    }
    let mut samples = Samples::new();
    for round in 0..arguments.rounds {
        eprintln!("round {} of {}", round + 1, arguments.rounds);
        for place in 0..ORDER.len() {
            let name = ORDER[(place + 3 * round) % ORDER.len()];
            if name.contains(&arguments.only) {
                measure(name, arguments.events, &mut samples).await;
            }
        }
    }
    report(&samples);
}

async fn measure(name: &'static str, events: usize, samples: &mut Samples) {
    let mut add = |name, value| samples.entry(name).or_default().push(value);
    match name {
        SQLITE => {
            let folder = tempfile::tempdir().expect("temporary folder");
            let service =
                Service::start(PROGRAM, &format!("sqlite:{}/events.db", folder.path().display()));
            add(SQLITE, service.bench(&["--in-flight", "16"], events, RATE));
        }
        BARE => {
            let server = bare::start();
            add(BARE, processor_micros(&server, events / 5).0);
        }
        SQLITE_RAW => add(SQLITE_RAW, sqlite::direct(events)),
        _ => {
            let database = bench::database().await;
            measure_on(&database, name, events, add).await;
            database.drop().await;
        }
    }
}

const RATE: &str = "/events_per_second";
const P50: &str = "/latency_ms/p50";

async fn measure_on(
    database: &Database,
    name: &'static str,
    events: usize,
    mut add: impl FnMut(&'static str, f64),
) {
    let service = || {
        let service = Service::start(PROGRAM, &database.url);
        // Opens the connections to the database, which the direct ones have open, too.
        service.bench(&["--batch", "1"], 64, RATE);
        service
    };
    match name {
        STREAM => {
            let service = service();
            add(STREAM, service.bench(&["--seed", "1", "--in-flight", "16"], events, RATE));
            add(AGAIN, service.bench(&["--seed", "1", "--in-flight", "16"], events, RATE));
        }
        STRUCT => add(
            STRUCT,
            service().bench(&["--payload", "struct", "--in-flight", "16"], events, RATE),
        ),
        UNARY => {
            let (micros, rate) = processor_micros(&service(), events / 5);
            add(CALL, micros);
            add(UNARY, rate);
        }
        LONE => {
            let lone = ["--unary", "--batch", "1", "--clients", "1", "--in-flight", "1"];
            add(LONE, service().bench(&lone, events / 100, P50));
        }
        STATEMENT => add(name, direct::same_statement(database, events).await),
        NAIVE => add(name, direct::naive_statement(database, events).await),
        ROWS => add(name, direct::single_rows(database, events / 20, 16).await.rate),
        _ => add(name, direct::single_rows(database, events / 100, 1).await.p50_millis),
    }
}

/// Processor time of a server per unary call in microseconds, and calls per second.
fn processor_micros(server: &Service, calls: usize) -> (f64, f64) {
    let unary = ["--unary", "--batch", "1", "--clients", "8", "--in-flight", "32"];
    let before = server.processor_seconds();
    let rate = server.bench(&unary, calls, RATE);
    ((server.processor_seconds() - before) * 1e6 / calls as f64, rate)
}

/// Median, lowest and highest.
fn spread(values: &[f64]) -> [f64; 3] {
    let mut values = values.to_vec();
    values.sort_by(f64::total_cmp);
    [values[values.len() / 2], values[0], values[values.len() - 1]]
}

fn report(samples: &Samples) {
    println!("{:<50} {:>10} {:>10} {:>10}", "events per second", "median", "lowest", "highest");
    for (name, values) in samples {
        let digits = if name.contains("ms") || name.contains("µs") { 3 } else { 0 };
        let [median, lowest, highest] = spread(values);
        println!("{name:<50} {median:>10.digits$} {lowest:>10.digits$} {highest:>10.digits$}");
    }
    println!("\n{:<101} {:>6} {:>6} {:>6}", "ratio, round by round", "median", "lowest", "highest");
    for (one, other) in RATIOS {
        let (Some(ones), Some(others)) = (samples.get(one), samples.get(other)) else { continue };
        let ratios: Vec<f64> = ones.iter().zip(others).map(|(one, other)| one / other).collect();
        let [median, lowest, highest] = spread(&ratios);
        println!("{one:<49} / {other:<49} {median:>6.2} {lowest:>6.2} {highest:>6.2}");
    }
}
