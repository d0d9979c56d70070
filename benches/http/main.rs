//! Compares plain HTTP with gRPC: the same service and store, batches of 500 and the same number of
//! calls in flight. Each measurement starts with an empty store.

#![allow(unreachable_pub)]

use std::{
    io::{Read, Write},
    net::TcpStream,
    thread,
    time::Instant,
};

#[allow(dead_code)]
#[path = "../ceiling/database.rs"]
mod database;
#[allow(dead_code)]
#[path = "../../tests/it/postgres_server.rs"]
mod postgres_server;
#[path = "../ceiling/service.rs"]
mod service;

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
    let rate = |url: &str| {
        let service = service::start(url);
        let grpc = ["--unary", "--clients", "8", "--in-flight", "1"];
        // Warm up: open the connections of the service to its database.
        service.bench(&["--batch", "1"], 64, "/events_per_second");
        match over_http {
            true => http(&service.address),
            false => service.bench(&grpc, EVENTS, "/events_per_second"),
        }
    };
    if store == "SQLite" {
        let folder = tempfile::tempdir().expect("temporary folder");
        return rate(&format!("sqlite:{}/events.db", folder.path().display()));
    }
    let database = database::TestDatabase::new().await;
    let rate = rate(&database.url);
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

fn http(address: &str) -> f64 {
    let begun = Instant::now();
    let clients: Vec<_> = (0..CALLS)
        .map(|_| {
            let mut connection = TcpStream::connect(address).expect("connect");
            connection.set_nodelay(true).expect("no delay");
            thread::spawn(move || {
                for _ in 0..EVENTS / BATCH / CALLS {
                    connection.write_all(&request()).expect("send");
                    answered(&mut connection);
                }
            })
        })
        .collect();
    clients.into_iter().for_each(|client| client.join().expect("answered"));
    EVENTS as f64 / begun.elapsed().as_secs_f64()
}

/// Reads one answer to its end.
fn answered(connection: &mut TcpStream) {
    let mut answer = Vec::new();
    let mut buffer = vec![0; 64 << 10];
    loop {
        let read = connection.read(&mut buffer).expect("an answer");
        assert!(read > 0, "cut off");
        answer.extend_from_slice(&buffer[..read]);
        let Some(end) = answer.windows(4).position(|four| four == b"\r\n\r\n") else { continue };
        let head = String::from_utf8_lossy(&answer[..end]).to_lowercase();
        assert!(head.starts_with("http/1.1 200"), "{head}");
        let length = head.split("content-length: ").nth(1).expect("a length");
        let length: usize =
            length.lines().next().and_then(|length| length.parse().ok()).expect("a number");
        if answer.len() >= end + 4 + length {
            return;
        }
    }
}
