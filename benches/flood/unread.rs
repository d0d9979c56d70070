//! Measures the cost of subscribers that do not read large events: as many as the limit permits,
//! over connections with windows of zero that respond to pings. Meanwhile one subscriber reads
//! small events.

use std::net::{Ipv4Addr, SocketAddr};

use event_aggregator::proto::v1::{
    SubscribeRequest, event::Content, subscribe_response::Frame as Sent,
};
use testkit::http;

use super::*;

/// HTTP/2 preface with windows of zero for responses.
const BEGIN: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\x06\x04\0\0\0\0\0\0\x04\0\0\0\0";

/// Header fields of a call to Subscribe, for HPACK.
const FIELDS: &[u8] = b"\x83\x86\x04\x35/event_aggregator.v1.EventAggregatorService/Subscribe\
    \x01\x05flood\x0f\x10\x10application/grpc\x00\x02te\x08trailers";

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const PING: u8 = 6;

const LARGE_EVENTS: usize = 16;

/// Subscriptions per connection. One address may use half of the limit.
const OF_ONE: usize = 256;

pub async fn measure(service: &Service, subscriptions: usize) {
    let address = service.address;
    let connected = EventAggregatorServiceClient::connect(format!("http://{address}")).await;
    let mut client = connected.expect("connect");
    for n in 0..LARGE_EVENTS {
        let payload = format!(r#"{{"data":"{}"}}"#, "x".repeat((1 << 20) - 20));
        publish(&mut client, &format!("large-{n}"), payload).await;
    }
    let request = SubscribeRequest {
        topics: vec!["small".to_owned()],
        cursor: "end".to_owned(),
        ..SubscribeRequest::default()
    };
    let mut frames = client.subscribe(request).await.expect("a subscription").into_inner();
    let before = status_mib(service.id(), "VmRSS:");
    let begun = Instant::now();
    let mut connections = JoinSet::new();
    for n in (0..subscriptions).step_by(OF_ONE) {
        let host = if n < subscriptions / 2 { 2 } else { 3 };
        let streams = OF_ONE.min(subscriptions - n);
        connections.spawn(take_nothing(Ipv4Addr::new(127, 0, 0, host), address, streams));
    }
    let mut latencies: Histogram<u64> = Histogram::new(3).expect("three digits");
    let (mut most, mut all_there) = (0, Duration::ZERO);
    loop {
        let published = Instant::now();
        publish(&mut client, "small", "{}".to_owned()).await;
        loop {
            let frame = frames.message().await.expect("a frame").expect("no end").frame;
            if let Some(Sent::Events(_)) = frame {
                break;
            }
        }
        latencies.record(published.elapsed().as_micros() as u64).expect("it grows");
        sleep(Duration::from_millis(20)).await;
        // Only one of them reads.
        let unread = subscribers(address).await - 1;
        if unread > most {
            (most, all_there) = (unread, begun.elapsed());
        }
        if most > 0 && unread == 0 {
            break;
        }
    }
    println!(
        "  {most} subscriptions that take nothing, there after {:.1} s, ended after {:.1} s: memory {before} MiB before, \
         at most {} MiB, {} MiB afterwards; small events delivered: p50 {:.2} ms, p99 {:.2} ms",
        all_there.as_secs_f64(),
        begun.elapsed().as_secs_f64(),
        status_mib(service.id(), "VmHWM:"),
        status_mib(service.id(), "VmRSS:"),
        latencies.value_at_quantile(0.5) as f64 / 1e3,
        latencies.value_at_quantile(0.99) as f64 / 1e3,
    );
    connections.shutdown().await;
}

async fn publish(
    client: &mut EventAggregatorServiceClient<tonic::transport::Channel>,
    topic: &str,
    payload: String,
) {
    let event = Event {
        topic: topic.to_owned(),
        event_id: uuid::Uuid::new_v4().to_string(),
        source: "bench".to_owned(),
        content: Some(Content::PayloadJson(payload)),
        ..Event::default()
    };
    let request = PublishRequest { events: vec![event], allow_partial: false };
    client.publish(request).await.expect("an answer");
}

/// Subscribes to all topics, reads no events, and responds to pings.
async fn take_nothing(from: Ipv4Addr, address: SocketAddr, streams: usize) -> std::io::Result<()> {
    let socket = TcpSocket::new_v4()?;
    socket.bind((from, 0).into())?;
    let mut connection = socket.connect(address).await?;
    connection.write_all(BEGIN).await?;
    for n in 0..streams {
        let stream = n as u32 * 2 + 1;
        connection.write_all(&frame(HEADERS, 4, stream, FIELDS)).await?;
        // An empty message.
        connection.write_all(&frame(DATA, 1, stream, &[0; 5])).await?;
    }
    loop {
        let mut head = [0; 9];
        connection.read_exact(&mut head).await?;
        let [a, b, c, kind, flags, ..] = head;
        let mut content = vec![0; u32::from_be_bytes([0, a, b, c]) as usize];
        connection.read_exact(&mut content).await?;
        if kind == PING && flags & 1 == 0 {
            connection.write_all(&frame(PING, 1, 0, &content)).await?;
        }
    }
}

/// An HTTP/2 frame.
fn frame(kind: u8, flags: u8, stream: u32, content: &[u8]) -> Vec<u8> {
    let [_, length @ ..] = (content.len() as u32).to_be_bytes();
    [&length[..], &[kind, flags], &stream.to_be_bytes(), content].concat()
}

/// The current number of subscriptions.
async fn subscribers(address: SocketAddr) -> usize {
    let metrics = http::get(address, "/metrics").await.expect("a response").body;
    let name = "event_aggregator_subscribers ";
    let line = metrics.lines().find_map(|line| line.strip_prefix(name)).expect("the metric");
    line.parse().expect("a number")
}

/// A value of /proc/PID/status, in MiB.
fn status_mib(pid: u32, name: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("status");
    let line = status.lines().find_map(|line| line.strip_prefix(name)).expect("a line");
    line.trim().trim_end_matches(" kB").parse::<u64>().expect("kB") / 1_024
}
