//! Subscribers that do not read: their memory is bounded, they are disconnected in the end, and
//! others are not affected.

use std::net::Ipv4Addr;

use event_aggregator::proto::v1::{Event, SubscribeRequest};
use testkit::{
    http2::{Connection, DATA, END_STREAM, begin, begin_at, frame, stream},
    process::Service,
};
use tonic::Code;

use super::{Frame, Reader};
use crate::harness::*;

on_both_stores!(stalled_subscribers_are_bounded_and_disconnected);

/// Calls of one kind on a connection.
const OF_ONE: usize = 60;

/// Far less than unread subscriptions would need if everything read for them was kept.
const MOST_MIB: u64 = 512;

/// An event with a payload of almost the maximum size.
fn large(n: usize) -> Event {
    let payload = format!(r#"{{"data":"{}"}}"#, "x".repeat((1 << 20) - 20));
    event_with(&format!("t{n}"), "large", &payload)
}

fn subscribe(stream: u32) -> Vec<u8> {
    // An empty message.
    [begin("Subscribe", stream, 0), frame(DATA, END_STREAM, stream, &[0; 5])].concat()
}

fn follow(stream: u32) -> Vec<u8> {
    const HEAD: usize = 9;
    const GET: u8 = 0x82;
    let mut call = begin_at("/events/stream?cursor=beginning", stream, END_STREAM);
    call[HEAD] = GET;
    call
}

/// Peak memory of the service.
fn peak_mib(service: &Service) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", service.id())).expect("status");
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("VmHWM");
    line.trim().trim_end_matches(" kB").parse::<u64>().expect("kB") / 1_024
}

/// Publishes a small event, which all subscribers get.
async fn publish_to(readers: &mut [Reader], client: &mut Client, id: &str) {
    publish(client, vec![event("small", id)]).await;
    for reader in readers {
        assert_eq!(ids(&reader.take(1).await), [id]);
    }
}

async fn stalled_subscribers_are_bounded_and_disconnected(backend: Backend) {
    const LARGE: usize = 12;
    const LIVE: usize = 300;
    let database = TestDatabase::new(backend).await;
    let service = serve(&database.url_text());
    let mut client = connect_to(service.address).await;
    for n in 0..LARGE {
        publish(&mut client, vec![large(n)]).await;
    }
    let mut live = Vec::new();
    for _ in 0..LIVE {
        let request = SubscribeRequest {
            topics: vec!["small".to_owned()],
            cursor: "end".to_owned(),
            ..Default::default()
        };
        let mut reader = Reader::start(&mut client, request).await;
        reader.until_caught_up().await;
        live.push(reader);
    }
    // The initial flow-control window of a client, and none.
    let mut lazy = Reader::from(&mut connect_to(service.address).await, "").await;
    let mut unread = Vec::new();
    for host in [2, 3] {
        let from = Ipv4Addr::new(127, 0, 0, host);
        let mut connection = Connection::open_without_window_from(from, service.address).await;
        for n in 0..OF_ONE {
            connection.send(&subscribe(stream(2 * n))).await;
            connection.send(&follow(stream(2 * n + 1))).await;
        }
        unread.push(tokio::spawn(connection.stay()));
    }
    until_metric(service.address, "event_aggregator_subscribers", LIVE + 1 + 4 * OF_ONE).await;

    for n in 0..20 {
        publish_to(&mut live, &mut client, &n.to_string()).await;
    }
    let mut reader = Reader::from(&mut client, "").await;
    let events = reader.until_caught_up().await;
    assert_eq!(events.len(), LARGE + 20, "one that reads gets everything");
    drop(reader);

    // Stalled subscriptions end, and idle ones do not.
    until_metric(service.address, "event_aggregator_subscribers", LIVE).await;
    assert_eq!(metric(service.address, "event_aggregator_subscription_bytes").await, 0.0);
    let peak = peak_mib(&service);
    assert!(peak < MOST_MIB, "{peak} MiB");
    assert!(unread.iter().all(|unread| !unread.is_finished()), "their connections stay");
    publish_to(&mut live, &mut client, "after").await;

    let mut events = 0;
    let ended = loop {
        match lazy.next().await {
            Ok(Frame::Events(batch)) => events += batch.events.len(),
            Ok(_) => (),
            Err(status) => break status,
        }
    };
    assert_eq!((ended.code(), &*reason(&ended)), (Code::ResourceExhausted, "SUBSCRIBER_TOO_SLOW"));
    let rest = Reader::from(&mut client, &lazy.cursor).await.until_caught_up().await;
    assert_eq!(events + rest.len(), LARGE + 21, "resumed where it stopped");
}
