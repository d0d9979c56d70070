//! Compares plain HTTP with gRPC: the same service and store, batches of 500 and the same number of
//! calls in flight. Each measurement starts with an empty store.

#![allow(unreachable_pub)]

use std::{net::SocketAddr, time::Instant};
use testkit::{
    bench::{self, Service},
    http::Connection,
};
use tokio::task::JoinSet;

const PROGRAM: &str = env!("CARGO_BIN_EXE_event-aggregator");

const ROUNDS: usize = 5;
const EVENTS: usize = 200_000;
const BATCH: usize = 500;
/// HTTP connections, and gRPC calls in flight.
const CALLS: usize = 8;

#[tokio::main]
async fn main() {
    for store in ["SQLite", "PostgreSQL"] {
        let mut rates = [Vec::new(), Vec::new()];
        for round in 0..ROUNDS {
            for place in 0..2 {
                let which = (round + place) % 2;
                rates[which].push(measure(store, which == 1).await);
            }
        }
        let ratios = rates[1].iter().zip(&rates[0]).map(|(http, grpc)| http / grpc).collect();
        let [grpc, http] = rates;
        for (name, values) in [("gRPC", grpc), ("HTTP", http), ("HTTP / gRPC", ratios)] {
            let mut values: Vec<f64> = values;
            values.sort_by(f64::total_cmp);
            let (median, highest) = (values[ROUNDS / 2], values[ROUNDS - 1]);
            println!("{store:<10} {name:<11} {median:>10.2} {:>10.2} {highest:>10.2}", values[0]);
        }
    }
}

async fn measure(store: &str, over_http: bool) -> f64 {
    let rate = async |url: &str| {
        let service = Service::start(PROGRAM, url);
        let grpc = ["--unary", "--clients", "8", "--in-flight", "1"];
        // Warm up: open the connections of the service to its database.
        service.bench(&["--batch", "1"], 64, "/events_per_second");
        match over_http {
            true => http(service.address).await,
            false => service.bench(&grpc, EVENTS, "/events_per_second"),
        }
    };
    if store == "SQLite" {
        let folder = tempfile::tempdir().expect("temporary folder");
        return rate(&format!("sqlite:{}/events.db", folder.path().display())).await;
    }
    let database = bench::database().await;
    let rate = rate(&database.url).await;
    database.drop().await;
    rate
}

/// A complete request with events like those of the `bench` command.
fn request() -> Vec<u8> {
    let data = "x".repeat(150 - r#"{"data":""}"#.len());
    let events: Vec<String> = (0..BATCH)
        .map(|n| {
            let id = uuid::Uuid::new_v4().simple();
            format!(
                r#"{{"topic":"bench-{}","event_id":"{id}","source":"bench","payload":{{"data":"{data}"}}}}"#,
                n % 16
            )
        })
        .collect();
    let body = format!("[{}]", events.join(","));
    let head = "POST /publish HTTP/1.1\r\nHost: bench\r\nContent-Type: application/json\r\n";
    format!("{head}Content-Length: {}\r\n\r\n{body}", body.len()).into_bytes()
}

async fn http(address: SocketAddr) -> f64 {
    let begun = Instant::now();
    let mut clients = JoinSet::new();
    for _ in 0..CALLS {
        let mut connection = Connection::open(address).await.expect("connect");
        clients.spawn(async move {
            for _ in 0..EVENTS / BATCH / CALLS {
                let response = connection.call(&request()).await.expect("a response");
                assert_eq!(response.status, 200, "{}", response.body);
            }
        });
    }
    clients.join_all().await;
    EVENTS as f64 / begun.elapsed().as_secs_f64()
}
