//! One client of the load test, and its measurements.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use anyhow::Context;
use hdrhistogram::Histogram;
use prost::Message;
use tokio::{sync::mpsc, task::JoinSet};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, client::Grpc, codegen::http::uri::PathAndQuery};
use tonic_prost::ProstCodec;

use super::generator::Generator;
use crate::{
    cli::client::{Channel, Refused},
    proto::wire::{PublishRequest, PublishStreamRequest},
};

/// The response fields that are decoded; the results of single events are skipped.
#[derive(Clone, PartialEq, Message)]
struct Tally {
    #[prost(int64, tag = "3")]
    unique_processed: i64,
    #[prost(int64, tag = "4")]
    duplicate_dropped: i64,
}

/// One client's share of the load.
pub(super) struct Load {
    pub(super) channel: Channel,
    pub(super) generator: Generator,
    pub(super) events: u64,
    pub(super) until: Option<Instant>,
    pub(super) batch: usize,
    pub(super) in_flight: usize,
    /// Interval between requests.
    pub(super) pace: Option<Duration>,
}

/// Longest recorded latency; slower responses are clamped to it.
const LONGEST_MICROS: u64 = 600_000_000;

/// Measurements of one client.
#[derive(Debug)]
pub(super) struct Report {
    pub(super) accepted: u64,
    pub(super) duplicates: u64,
    pub(super) bytes: u64,
    /// Latency per request, in microseconds.
    pub(super) latency: Histogram<u64>,
}

impl Report {
    pub(super) fn new() -> anyhow::Result<Self> {
        let latency = Histogram::new_with_max(LONGEST_MICROS, 3).context("histogram")?;
        Ok(Self { accepted: 0, duplicates: 0, bytes: 0, latency })
    }

    pub(super) fn events(&self) -> u64 {
        self.accepted + self.duplicates
    }

    pub(super) fn add(&mut self, other: &Self) -> anyhow::Result<()> {
        self.accepted += other.accepted;
        self.duplicates += other.duplicates;
        self.bytes += other.bytes;
        self.latency.add(&other.latency).context("histogram")
    }

    fn answered(&mut self, due: Instant, unique: i64, duplicates: i64) {
        self.accepted += unique as u64;
        self.duplicates += duplicates as u64;
        let micros = due.elapsed().as_micros();
        self.latency.saturating_record(u64::try_from(micros).unwrap_or(u64::MAX));
    }
}

/// When requests are due.
struct Schedule {
    left: u64,
    until: Option<Instant>,
    pace: Option<Duration>,
    next: Instant,
}

impl Schedule {
    fn new(load: &Load) -> Self {
        Self { left: load.events, until: load.until, pace: load.pace, next: Instant::now() }
    }

    /// Waits for the next request. Returns its due time and its size in events, or `None` at the
    /// end.
    async fn due(&mut self, batch: usize) -> Option<(Instant, usize)> {
        if self.pace.is_some() {
            tokio::time::sleep_until(self.next.into()).await;
        }
        let now = Instant::now();
        if self.left == 0 || self.until.is_some_and(|until| now >= until) {
            return None;
        }
        let events = self.left.min(batch as u64);
        self.left -= events;
        // Measuring from the due time avoids coordinated omission.
        let Some(pace) = self.pace else { return Some((now, events as usize)) };
        let due = self.next;
        self.next += pace;
        Some((due, events as usize))
    }
}

/// Waits until the channel can send a request.
async fn ready(channel: Channel) -> anyhow::Result<Grpc<Channel>> {
    let mut client = Grpc::new(channel);
    client.ready().await.context("connection lost")?;
    Ok(client)
}

async fn publish(channel: Channel, request: PublishRequest) -> anyhow::Result<Tally> {
    let path = PathAndQuery::from_static("/event_aggregator.v1.EventAggregatorService/Publish");
    let codec: ProstCodec<_, Tally> = ProstCodec::default();
    let response: Result<Response<Tally>, Status> =
        ready(channel).await?.unary(Request::new(request), path, codec).await;
    Ok(response.map_err(Refused)?.into_inner())
}

impl Load {
    pub(super) async fn stream(mut self) -> anyhow::Result<Report> {
        let mut report = Report::new()?;
        let mut schedule = Schedule::new(&self);
        let (requests, outgoing) = mpsc::channel(1);
        let stream = ReceiverStream::new(outgoing);
        let mut client = ready(self.channel).await?;
        let path =
            PathAndQuery::from_static("/event_aggregator.v1.EventAggregatorService/PublishStream");
        let codec: ProstCodec<_, Tally> = ProstCodec::default();
        let responses = client.streaming(Request::new(stream), path, codec).await;
        let responses: Response<tonic::Streaming<Tally>> = responses.map_err(Refused)?;
        let mut responses = responses.into_inner();
        let mut waiting: VecDeque<Instant> = VecDeque::with_capacity(self.in_flight);
        let mut made = None;
        let mut ended = false;
        loop {
            tokio::select! {
                due = schedule.due(self.batch),
                    if !ended && made.is_none() && waiting.len() < self.in_flight =>
                {
                    ended = due.is_none();
                    made = due.map(|(due, events)| {
                        waiting.push_back(due);
                        let events = self.generator.events(events);
                        PublishStreamRequest { events, request_id: String::new() }
                    });
                    report.bytes += made.as_ref().map_or(0, Message::encoded_len) as u64;
                }
                // If the stream is broken, `reserve` fails and the response has the error.
                Ok(slot) = requests.reserve(), if made.is_some() => {
                    if let Some(request) = made.take() {
                        slot.send(request);
                    }
                }
                response = responses.message(), if !waiting.is_empty() => {
                    let response = response.map_err(Refused)?.context("the stream ended early")?;
                    if let Some(due) = waiting.pop_front() {
                        report.answered(due, response.unique_processed, response.duplicate_dropped);
                    }
                }
                else => return Ok(report),
            }
        }
    }

    pub(super) async fn unary(mut self) -> anyhow::Result<Report> {
        let mut report = Report::new()?;
        let mut schedule = Schedule::new(&self);
        let mut calls = JoinSet::new();
        let mut ended = false;
        loop {
            tokio::select! {
                due = schedule.due(self.batch), if !ended && calls.len() < self.in_flight => {
                    let Some((due, events)) = due else {
                        ended = true;
                        continue;
                    };
                    let events = self.generator.events(events);
                    let request = PublishRequest { events, allow_partial: false };
                    report.bytes += request.encoded_len() as u64;
                    let channel = self.channel.clone();
                    calls.spawn(async move { (due, publish(channel, request).await) });
                }
                Some(answered) = calls.join_next() => {
                    let (due, response) = answered.context("a call failed")?;
                    let response = response?;
                    report.answered(due, response.unique_processed, response.duplicate_dropped);
                }
                else => return Ok(report),
            }
        }
    }
}
