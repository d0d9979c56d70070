//! Measures the effect of floods on a well-behaved client, which publishes single events at a fixed
//! rate. Intervals with and without the flood alternate, so that both run under the same
//! conditions. Real floods come from other machines, so the flood is a process with the lowest CPU
//! priority. The ratio still includes its CPU use; for comparison, a process that only uses CPU
//! time is measured in the same way.

#![allow(unreachable_pub)]

use std::{
    fs,
    io::{BufRead, BufReader},
    net::SocketAddr,
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use clap::Parser;
use event_aggregator::proto::v1::{
    Event, PublishRequest, event_aggregator_service_client::EventAggregatorServiceClient,
};
use hdrhistogram::Histogram;
use testkit::bench::{self, Service};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
    task::JoinSet,
    time::{MissedTickBehavior, interval, sleep},
};

use self::flood::Flood;

mod flood;
mod greedy;
mod identities;
mod repeats;
mod unread;

const PROGRAM: &str = env!("CARGO_BIN_EXE_event-aggregator");

#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Part {
    /// Floods by unauthenticated clients.
    Floods,
    /// Subscriptions that do not read.
    Unread,
    /// Small duplicates of large events, by an identity with a rate limit.
    Repeats,
    /// One greedy identity.
    Greedy,
}

#[derive(Parser)]
struct Arguments {
    /// Run only this measurement
    #[arg(long, value_enum)]
    only: Option<Part>,

    /// Rounds of each attack and the interval before it
    #[arg(long, default_value_t = 5)]
    rounds: usize,

    /// Seconds of each measurement
    #[arg(long, default_value_t = 4)]
    seconds: u64,

    /// Calls per second of the well-behaved client
    #[arg(long, default_value_t = 200)]
    rate: u32,

    /// Connections of connection floods; see `ulimit -n`
    #[arg(long, default_value_t = 5_000)]
    connections: usize,

    /// Subscriptions that do not read
    #[arg(long, default_value_t = 2_047)]
    unread: usize,

    /// Run this flood until standard input ends
    #[arg(long, value_enum, hide = true, requires = "address")]
    flood: Option<Flood>,

    /// Target address of the flood
    #[arg(long, hide = true)]
    address: Option<SocketAddr>,

    /// Passed by cargo
    #[arg(long, hide = true)]
    bench: bool,
}

impl Arguments {
    fn measures(&self, part: Part) -> bool {
        self.only.is_none_or(|only| only == part)
    }
}

#[tokio::main]
async fn main() {
    let arguments = Arguments::parse();
    if let (Some(flood), Some(address)) = (arguments.flood, arguments.address) {
        return flood.run(address, arguments.connections).await;
    }
    for store in ["SQLite", "PostgreSQL"] {
        let folder = tempfile::tempdir().expect("temporary folder");
        let database = match store {
            "SQLite" => None,
            _ => Some(bench::database().await),
        };
        let url = match &database {
            Some(database) => database.url.clone(),
            None => format!("sqlite:{}/events.db", folder.path().display()),
        };
        println!("{store}");
        if arguments.measures(Part::Floods) {
            println!("  flood                    p50 ms   p99 ms  / alone   memory MiB   done");
            for flood in Flood::ALL {
                let service = Service::start(PROGRAM, &url);
                may_open_files(service.id(), arguments.connections);
                may_open_files(std::process::id(), arguments.connections);
                measure(&service, flood, &arguments).await;
            }
        }
        if arguments.measures(Part::Unread) {
            unread::measure(&Service::start(PROGRAM, &url), arguments.unread).await;
        }
        if arguments.measures(Part::Repeats) {
            let lanes = if database.is_some() { 4 } else { 1 };
            repeats::measure(&url, folder.path(), lanes, &arguments).await;
        }
        if arguments.measures(Part::Greedy) {
            greedy::measure(&url, folder.path(), &arguments).await;
        }
        if let Some(database) = database {
            database.drop().await;
        }
    }
}

/// Measures a flood and the rest before it, again and again, and prints the medians.
async fn measure(service: &Service, flood: Flood, arguments: &Arguments) {
    let mut ratios = Vec::new();
    let (mut halves, mut tails) = (Vec::new(), Vec::new());
    let (mut memory, mut done) = (0, 0);
    for _ in 0..arguments.rounds {
        let alone = behave(service.address, arguments).await;
        let flooding = Flooding::begin(flood, service.address, arguments.connections);
        let flooded = behave(service.address, arguments).await;
        memory = memory.max(peak_mib(service.id()));
        done += flooding.end();
        // Let the queues of the system drain before the next measurement.
        sleep(Duration::from_millis(500)).await;
        let p99 = |latencies: &Histogram<u64>| latencies.value_at_quantile(0.99) as f64 / 1e3;
        ratios.push(p99(&flooded) / p99(&alone));
        tails.push(p99(&flooded));
        halves.push(flooded.value_at_quantile(0.5) as f64 / 1e3);
    }
    println!(
        "  {:<22} {:>8.2} {:>8.2} {:>8.2} {memory:>12} {done:>8}",
        flood.name(),
        median(halves),
        median(tails),
        median(ratios),
    );
}

/// A flood in progress: this program as a child process.
struct Flooding(Child);

impl Flooding {
    /// Returns once the flood is in full flow.
    fn begin(flood: Flood, address: SocketAddr, connections: usize) -> Self {
        let program = std::env::current_exe().expect("this program");
        let mut process = Command::new("chrt")
            .args(["--idle", "0"])
            .arg(program)
            .args(["--flood", flood.name(), "--address", &address.to_string()])
            .args(["--connections", &connections.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("a flood");
        let mut line = String::new();
        let stdout = process.stdout.as_mut().expect("piped");
        BufReader::new(stdout).read_line(&mut line).expect("a line");
        assert_eq!(line, "flows\n");
        Self(process)
    }

    /// Stops the flood. Returns its number of operations.
    fn end(mut self) -> u64 {
        drop(self.0.stdin.take());
        let output = self.0.wait_with_output().expect("its end");
        String::from_utf8_lossy(&output.stdout).trim().parse().expect("a number")
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Publishes one event at a time, and tells the latencies in µs, from when each was due.
async fn behave(address: SocketAddr, arguments: &Arguments) -> Histogram<u64> {
    let connected = EventAggregatorServiceClient::connect(format!("http://{address}")).await;
    let client = connected.expect("connect");
    let mut ticks = interval(Duration::from_secs(1) / arguments.rate);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let mut calls = JoinSet::new();
    for _ in 0..u64::from(arguments.rate) * arguments.seconds {
        let due = ticks.tick().await;
        let mut client = client.clone();
        calls.spawn(async move {
            let event = Event {
                topic: "flood".to_owned(),
                event_id: uuid::Uuid::new_v4().to_string(),
                source: "bench".to_owned(),
                ..Event::default()
            };
            let request = PublishRequest { events: vec![event], allow_partial: false };
            client.publish(request).await.expect("an answer");
            due.elapsed()
        });
    }
    let mut latencies = Histogram::new(3).expect("three digits");
    while let Some(latency) = calls.join_next().await {
        let latency = latency.expect("an answer").as_micros() as u64;
        latencies.record(latency).expect("it grows");
    }
    latencies
}

/// Peak memory of a process in MiB.
fn peak_mib(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("status");
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("VmHWM");
    line.trim().trim_end_matches(" kB").parse::<u64>().expect("kB") / 1_024
}

/// Sets the limit on open files of a process and its children to what a number of connections
/// needs.
fn may_open_files(pid: u32, connections: usize) {
    let files = connections + 1_000;
    let limit = format!("--nofile={files}:{files}");
    let set = Command::new("prlimit").args(["--pid", &pid.to_string(), &limit]).status();
    assert!(set.expect("prlimit").success(), "cannot open {files} files");
}
