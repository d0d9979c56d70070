//! `bench`: load-tests a service and reports its latency.

use std::{
    process::ExitCode,
    time::{Duration, Instant},
};

use anyhow::Context;
use clap::{Args, ValueEnum};
use hdrhistogram::Histogram;
use serde_json::json;
use tokio::task::JoinSet;

use self::{
    generator::Generator,
    load::{Load, Report},
};
use super::{Output, Table, client::Server, print, print_json};

mod generator;
mod load;

#[derive(Debug, Args)]
#[command(after_help = "The events stay in the database: use a disposable one.

Latency is measured per request, from when the request was due until its response arrived.")]
pub(super) struct Bench {
    #[command(flatten)]
    server: Server,

    /// Number of events to send
    #[arg(long, default_value_t = 1_000_000, conflicts_with = "duration", value_name = "N")]
    events: u64,

    /// Send events for this long instead
    #[arg(long, value_parser = positive, value_name = "SECONDS")]
    duration: Option<f64>,

    /// Number of connections, each with its own stream
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=1_000),
          value_name = "N")]
    clients: u32,

    /// Events per request
    #[arg(long, default_value_t = 500, value_parser = clap::value_parser!(u32).range(1..=1_000),
          value_name = "N")]
    batch: u32,

    /// Maximum number of unanswered requests per client
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..=10_000),
          value_name = "N")]
    in_flight: u32,

    /// Use unary Publish calls instead of PublishStream
    #[arg(long)]
    unary: bool,

    /// Fraction of events that are duplicates, from 0 to 1
    #[arg(long, default_value_t = 0.0, value_parser = super::part, value_name = "PART")]
    duplicates: f64,

    /// Kind of event ids: random (uuid4) or time-ordered (uuid7)
    #[arg(long, value_enum, default_value = "uuid4")]
    ids: Ids,

    /// Seed for random ids: a second run with the same seed sends only duplicates
    #[arg(long, value_name = "N")]
    seed: Option<u64>,

    /// Number of topics
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u32).range(1..),
          value_name = "N")]
    topics: u32,

    /// Size of each payload in bytes
    #[arg(long, default_value_t = 150, value_parser = clap::value_parser!(u32).range(16..=1_000_000),
          value_name = "N")]
    payload_bytes: u32,

    /// Wire format of payloads
    #[arg(long, value_enum, default_value = "json")]
    payload: PayloadForm,

    /// Maximum events per second over all clients; unlimited by default
    #[arg(long, value_parser = positive, value_name = "N")]
    rate: Option<f64>,

    /// Output format [default: table on a terminal, else ndjson]
    #[arg(short, long, value_enum)]
    output: Option<Output>,
}

fn positive(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(number) if (1e-3..=1e9).contains(&number) => Ok(number),
        _ => Err("must be a number between 0.001 and 1,000,000,000".to_owned()),
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Ids {
    Uuid4,
    Uuid7,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum PayloadForm {
    Json,
    Struct,
}

impl Bench {
    pub(super) async fn run(self) -> anyhow::Result<ExitCode> {
        let mut clients = JoinSet::new();
        let begun = Instant::now();
        for number in 0..self.clients {
            let share = self.events / u64::from(self.clients)
                + u64::from(u64::from(number) < self.events % u64::from(self.clients));
            let load = Load {
                channel: self.server.channel().await?,
                generator: Generator::new(&self, number.into()),
                events: if self.duration.is_some() { u64::MAX } else { share },
                until: self.duration.map(|seconds| begun + Duration::from_secs_f64(seconds)),
                batch: self.batch as usize,
                in_flight: self.in_flight as usize,
                pace: self.rate.map(|rate| {
                    let requests = rate / f64::from(self.clients) / f64::from(self.batch);
                    Duration::from_secs_f64(1.0 / requests)
                }),
            };
            match self.unary {
                true => clients.spawn(load.unary()),
                false => clients.spawn(load.stream()),
            };
        }
        let mut total = Report::new()?;
        while let Some(report) = clients.join_next().await {
            total.add(&report.context("a client failed")??)?;
        }
        let seconds = begun.elapsed().as_secs_f64();
        match Output::or_suitable(self.output) {
            Output::Table => print(as_table(&total, seconds))?,
            Output::Json | Output::Ndjson => print_json(as_json(&total, seconds))?,
        }
        Ok(ExitCode::SUCCESS)
    }
}

const QUANTILES: [(&str, f64); 4] = [("p50", 0.5), ("p95", 0.95), ("p99", 0.99), ("p99.9", 0.999)];

fn millis(latency: &Histogram<u64>, quantile: f64) -> f64 {
    latency.value_at_quantile(quantile) as f64 / 1_000.0
}

fn as_table(report: &Report, seconds: f64) -> String {
    let mut rows = Table::new(["", "per second", "total"]);
    for (what, count) in [
        ("events", report.events()),
        ("accepted", report.accepted),
        ("duplicates", report.duplicates),
        ("requests", report.latency.len()),
        ("bytes", report.bytes),
    ] {
        let rate = format!("{:.0}", count as f64 / seconds);
        rows.add_row([what.to_owned(), rate, count.to_string()]);
    }
    let quantiles =
        QUANTILES.map(|(name, at)| format!("{name} {:.2}", millis(&report.latency, at)));
    format!("{rows}\n{seconds:.2} s; latency in ms: {}", quantiles.join(", "))
}

fn as_json(report: &Report, seconds: f64) -> serde_json::Value {
    let latency = QUANTILES.map(|(name, at)| (name.to_owned(), millis(&report.latency, at).into()));
    json!({
        "seconds": seconds,
        "events": report.events(),
        "accepted": report.accepted,
        "duplicates": report.duplicates,
        "requests": report.latency.len(),
        "bytes": report.bytes,
        "events_per_second": report.events() as f64 / seconds,
        "latency_ms": serde_json::Map::from_iter(latency),
    })
}
