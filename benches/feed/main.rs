//! Measures the feed: replay compared with a SELECT of the same rows, delivery latency from the
//! same and from another instance, and the cost of idle subscribers.

#![allow(unreachable_pub)]

use std::{
    fs,
    time::{Duration, Instant, SystemTime},
};

use clap::Parser;
use event_aggregator::proto::v1::{
    PayloadFormat, SubscribeRequest, SubscribeResponse,
    event_aggregator_service_client::EventAggregatorServiceClient, subscribe_response::Frame,
};
use hdrhistogram::Histogram;
use testkit::bench::{self, Service};
use time::OffsetDateTime;
use tokio::task::JoinSet;
use tokio_stream::StreamExt;
use tonic::{Streaming, transport::Channel};

const PROGRAM: &str = env!("CARGO_BIN_EXE_event-aggregator");

#[derive(Parser)]
struct Arguments {
    /// Rounds of replay and SELECT
    #[arg(long, default_value_t = 5)]
    rounds: usize,

    /// Events to replay
    #[arg(long, default_value_t = 300_000)]
    events: usize,

    /// Events per second during the delivery measurement
    #[arg(long, default_value_t = 10_000)]
    rate: usize,

    /// Seconds of the delivery measurement
    #[arg(long, default_value_t = 10)]
    seconds: usize,

    /// Idle subscribers
    #[arg(long, default_value_t = 1_000)]
    idle: usize,

    /// Passed by cargo
    #[arg(long, hide = true)]
    bench: bool,
}

type Client = EventAggregatorServiceClient<Channel>;

#[tokio::main]
async fn main() {
    let arguments = Arguments::parse();
    for sqlite in [false, true] {
        let folder = tempfile::tempdir().expect("temporary folder");
        let (database, url) = match sqlite {
            false => {
                let database = bench::database().await;
                let url = database.url.clone();
                (Some(database), url)
            }
            true => (None, format!("sqlite:{}/events.db", folder.path().display())),
        };
        println!("{}", if sqlite { "SQLite" } else { "PostgreSQL" });
        let service = Service::start(PROGRAM, &url);
        service.bench(&[], arguments.events, "/events_per_second");
        replay(&service, &url, &arguments).await;
        deliver("the same instance", &service, &service, &arguments).await;
        if let Some(database) = database {
            let another = Service::start(PROGRAM, &url);
            deliver("another instance", &service, &another, &arguments).await;
            drop(another);
            idle(&service, &arguments).await;
            drop(service);
            database.drop().await;
        } else {
            idle(&service, &arguments).await;
        }
    }
}

async fn client(service: &Service) -> Client {
    let address = format!("http://{}", service.address);
    let client = Client::connect(address).await.expect("connect");
    client.max_decoding_message_size(8 << 20)
}

async fn subscribe(client: &mut Client, cursor: &str) -> Streaming<SubscribeResponse> {
    let request = SubscribeRequest {
        cursor: cursor.to_owned(),
        payload_format: PayloadFormat::Json.into(),
        ..Default::default()
    };
    client.subscribe(request).await.expect("a subscription").into_inner()
}

async fn replay(service: &Service, url: &str, arguments: &Arguments) {
    let mut ratios = Vec::new();
    for _ in 0..arguments.rounds {
        let begun = Instant::now();
        let mut frames = subscribe(&mut client(service).await, "").await;
        let mut events = 0;
        loop {
            match frames.message().await.expect("a frame").expect("no end").frame {
                Some(Frame::Events(batch)) => events += batch.events.len(),
                Some(Frame::CaughtUp(_)) => break,
                _ => (),
            }
        }
        let replayed = events as f64 / begun.elapsed().as_secs_f64();
        let selected = match url.strip_prefix("sqlite:") {
            Some(path) => select_from_sqlite(path, events),
            None => select(url, events).await,
        };
        println!("  replayed {replayed:.0} events/s, selected {selected:.0} rows/s");
        ratios.push(replayed / selected);
    }
    ratios.sort_by(f64::total_cmp);
    let [lowest, median, highest] = [0, ratios.len() / 2, ratios.len() - 1].map(|at| ratios[at]);
    println!("  replayed / selected: median {median:.2}, lowest {lowest:.2}, highest {highest:.2}");
}

/// Selects all rows in feed order and reads each column, at the speed of the driver.
async fn select(url: &str, expected: usize) -> f64 {
    let (client, connection) =
        tokio_postgres::connect(url, tokio_postgres::NoTls).await.expect("connect");
    tokio::spawn(connection);
    let sql = "SELECT topic, event_id, lane, seq, occurred_at, source, payload::text, received_at
               FROM processed_events ORDER BY lane, seq";
    let begun = Instant::now();
    let nothing: [&str; 0] = [];
    let mut rows = std::pin::pin!(client.query_raw(sql, nothing).await.expect("select"));
    let mut count = 0;
    while let Some(row) = rows.next().await.transpose().expect("row") {
        let texts: [String; 4] = [0, 1, 5, 6].map(|column| row.get(column));
        let position: (i16, i64) = (row.get(2), row.get(3));
        let times: (Option<OffsetDateTime>, OffsetDateTime) = (row.get(4), row.get(7));
        std::hint::black_box((texts, position, times));
        count += 1;
    }
    assert_eq!(count, expected);
    count as f64 / begun.elapsed().as_secs_f64()
}

fn select_from_sqlite(path: &str, expected: usize) -> f64 {
    let connection = rusqlite::Connection::open(path).expect("open");
    let begun = Instant::now();
    let sql = "SELECT topic, event_id, source, payload, seq, received_at, occurred_at
               FROM processed_events ORDER BY seq";
    let mut statement = connection.prepare(sql).expect("select");
    let mut rows = statement.query([]).expect("rows");
    let mut count = 0;
    while let Some(row) = rows.next().expect("row") {
        let texts: [String; 4] = [0, 1, 2, 3].map(|column| row.get(column).expect("text"));
        let numbers: [Option<i64>; 3] = [4, 5, 6].map(|column| row.get(column).expect("number"));
        std::hint::black_box((texts, numbers));
        count += 1;
    }
    assert_eq!(count, expected);
    count as f64 / begun.elapsed().as_secs_f64()
}

/// Publishes to one service and subscribes to another. The latency starts when the service closes
/// the batch of the event, so it includes the commit.
async fn deliver(place: &str, writer: &Service, reader: &Service, arguments: &Arguments) {
    let events = arguments.rate * arguments.seconds;
    let mut frames = subscribe(&mut client(reader).await, "end").await;
    let reading = tokio::spawn(async move {
        let mut micros: Histogram<u64> = Histogram::new(3).expect("histogram");
        while micros.len() < events as u64 {
            let frame = frames.message().await.expect("a frame").expect("no end").frame;
            let Some(Frame::Events(batch)) = frame else { continue };
            for event in batch.events {
                let received_at = event.received_at.expect("a time");
                let received_at =
                    Duration::new(received_at.seconds as u64, received_at.nanos as u32);
                let now = SystemTime::UNIX_EPOCH.elapsed().expect("a time");
                let late = now.saturating_sub(received_at).as_micros();
                micros.record(late as u64).expect("recorded");
            }
        }
        micros
    });
    let rate = arguments.rate.to_string();
    let answered = writer.bench(&["--rate", &rate, "--batch", "20"], events, "/latency_ms/p99");
    let micros = reading.await.expect("all events");
    let at = |quantile| micros.value_at_quantile(quantile) as f64 / 1_000.0;
    println!(
        "  batch closed → delivered by {place}, at {rate} events/s: p50 {:.1} ms, p99 {:.1} ms, p99.9 {:.1} ms (answered: p99 {answered:.1} ms)",
        at(0.5),
        at(0.99),
        at(0.999),
    );
}

async fn idle(service: &Service, arguments: &Arguments) {
    const CONNECTIONS: usize = 20;
    let before = resident_kib(service.id());
    let mut subscribing = JoinSet::new();
    for _ in 0..CONNECTIONS {
        let mut client = client(service).await;
        let each = arguments.idle / CONNECTIONS;
        subscribing.spawn(async move {
            let mut all = Vec::new();
            for _ in 0..each {
                let mut frames = subscribe(&mut client, "end").await;
                frames.message().await.expect("a frame");
                all.push(frames);
            }
            all
        });
    }
    let subscriptions = subscribing.join_all().await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let (begun, ticks) = (Instant::now(), cpu_ticks(service.id()));
    tokio::time::sleep(Duration::from_secs(10)).await;
    let used = (cpu_ticks(service.id()) - ticks) as f64 / 100.0 / begun.elapsed().as_secs_f64();
    println!(
        "  {} idle subscribers: {:.0} MiB more, {:.1} % of a core",
        arguments.idle,
        (resident_kib(service.id()) - before) as f64 / 1_024.0,
        used * 100.0
    );
    drop(subscriptions);
}

fn resident_kib(process: u32) -> i64 {
    let status = fs::read_to_string(format!("/proc/{process}/status")).expect("status");
    let line = status.lines().find(|line| line.starts_with("VmRSS")).expect("VmRSS");
    line.split_whitespace().nth(1).expect("size").parse().expect("number")
}

/// CPU time in hundredths of a second.
fn cpu_ticks(process: u32) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).expect("stat");
    let fields: Vec<&str> = stat.rsplit(')').next().expect("fields").split_whitespace().collect();
    fields[11].parse::<u64>().expect("user") + fields[12].parse::<u64>().expect("system")
}
