//! Readers: three subscribers, one that lists all pages, and one that samples the counters.

use std::{sync::Arc, time::Duration};

use event_aggregator::proto::v1::{
    Event, GetStatsRequest, ListEventsRequest, ListOrder, PayloadFormat, SubscribeRequest, event,
    subscribe_response::Frame,
};
use fastrand::Rng;
use tokio::{
    task::JoinSet,
    time::{Instant, sleep, sleep_until, timeout},
};
use tonic::{Code, Status};

use crate::{
    cluster::Client,
    database::key,
    history::{Delivery, Listing, Moment, Reader, Sample},
    recorder::{Waiting, counters, topic_counters},
    round::Round,
    workload,
};

/// Timeout of a reader for a response or a frame before it changes the instance. It grows with
/// consecutive timeouts.
const PATIENCE: Duration = Duration::from_secs(2);

/// Interval of the samples of the counters.
const LOOKS: Duration = Duration::from_millis(50);

/// The behavior of a subscriber.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Temper {
    /// Reads as fast as possible.
    Steady,
    /// Reads slowly.
    Slow,
    /// Disconnects repeatedly and changes the instance.
    Restless,
}

/// Starts all readers. They end when they have received everything, or when the round is aborted.
pub fn start(round: &Arc<Round>, rng: &mut Rng) -> JoinSet<()> {
    let mut reading = JoinSet::new();
    for temper in [Temper::Steady, Temper::Slow, Temper::Restless] {
        reading.spawn(subscribe(Arc::clone(round), temper, rng.fork()));
    }
    reading.spawn(walk(Arc::clone(round), rng.fork()));
    reading.spawn(watch(Arc::clone(round), rng.fork()));
    reading
}

/// Subscribes to all topics, and resumes from the last cursor until everything is read.
async fn subscribe(round: Arc<Round>, temper: Temper, mut rng: Rng) {
    let mut reader = Reader::default();
    let mut cursor = String::new();
    let mut failures = 0;
    while !reader.caught_up && !round.given_up.is_cancelled() {
        let instance = rng.usize(..round.cluster.size());
        let stay = match temper {
            Temper::Restless => Duration::from_millis(rng.u64(500..3_000)),
            _ => Duration::from_secs(3_600),
        };
        // At the end it reads everything, without a limit.
        let in_the_end = round.published.is_cancelled();
        let before = reader.deliveries.len();
        let patience = patience(failures);
        let reading = read(&round, instance, temper, patience, &mut cursor, &mut reader);
        let ended = tokio::select! {
            ended = reading => ended,
            () = sleep(stay), if !in_the_end => Ok(()),
            () = round.published.cancelled(), if !in_the_end => Ok(()),
            () = round.given_up.cancelled() => Ok(()),
        };
        if let Err(status) = ended {
            look_at(&round, "Subscribe", &status);
            sleep(Duration::from_millis(rng.u64(10..200))).await;
        }
        failures = if reader.deliveries.len() > before { 0 } else { failures + 1 };
    }
    round.recorder.reader(reader);
}

/// Reads one subscription. After the end of publishing, it ends when everything is read.
async fn read(
    round: &Round,
    instance: usize,
    temper: Temper,
    patience: Duration,
    cursor: &mut String,
    reader: &mut Reader,
) -> Result<(), Status> {
    let in_the_end = round.published.is_cancelled();
    let mut client = client(round, instance);
    let request = SubscribeRequest {
        topics: Vec::new(),
        cursor: cursor.clone(),
        payload_format: PayloadFormat::Json.into(),
    };
    let silence = |_| Status::deadline_exceeded("no answer");
    let mut frames =
        timeout(patience, client.subscribe(request)).await.map_err(silence)??.into_inner();
    reader.resumed += usize::from(!cursor.is_empty());
    loop {
        let frame = timeout(patience, frames.message()).await.map_err(silence)??;
        match frame.and_then(|frame| frame.frame) {
            Some(Frame::Events(batch)) => {
                let at = round.recorder.now();
                reader.deliveries.extend(batch.events.iter().map(|event| delivery(event, at)));
                *cursor = batch.cursor;
                round.recorder.goes_on(Waiting::Readers);
                if temper == Temper::Slow && !in_the_end {
                    sleep(Duration::from_millis(100)).await;
                }
            }
            Some(Frame::Checkpoint(checkpoint)) => *cursor = checkpoint.cursor,
            Some(Frame::CaughtUp(caught_up)) => {
                *cursor = caught_up.cursor;
                if in_the_end {
                    reader.caught_up = true;
                    return Ok(());
                }
            }
            None => {
                round.recorder.dirt("a subscription ended well; it has no end".to_owned());
                return Ok(());
            }
        }
    }
}

/// Lists all events page by page, repeatedly, and once more after the end of publishing.
async fn walk(round: Arc<Round>, mut rng: Rng) {
    let mut failures = 0;
    loop {
        let in_the_end = round.published.is_cancelled();
        let mut listing = Listing {
            invoked: round.recorder.now(),
            returned: Moment::ZERO,
            complete: false,
            events: Vec::new(),
        };
        let walked = tokio::select! {
            walked = list(&round, &mut rng, patience(failures), &mut listing.events) => walked,
            () = round.given_up.cancelled() => Err(Status::cancelled("given up")),
        };
        listing.returned = round.recorder.now();
        listing.complete = walked.is_ok();
        let complete = listing.complete;
        failures = if complete { 0 } else { failures + 1 };
        round.recorder.listing(listing);
        if let Err(status) = walked {
            look_at(&round, "ListEvents", &status);
        }
        if in_the_end && complete || round.given_up.is_cancelled() {
            return;
        }
        sleep(Duration::from_millis(rng.u64(10..100))).await;
    }
}

async fn list(
    round: &Round,
    rng: &mut Rng,
    patience: Duration,
    events: &mut Vec<Delivery>,
) -> Result<(), Status> {
    let mut request = ListEventsRequest {
        page_size: rng.i32(20..=1_000),
        order: ListOrder::OldestFirst.into(),
        payload_format: PayloadFormat::Json.into(),
        ..ListEventsRequest::default()
    };
    loop {
        // A page token is valid on every instance.
        let mut client = client(round, rng.usize(..round.cluster.size()));
        let page = timeout(patience, client.list_events(request.clone())).await;
        let page = page.map_err(|_| Status::deadline_exceeded("no answer"))??.into_inner();
        let at = round.recorder.now();
        round.recorder.goes_on(Waiting::Readers);
        events.extend(page.events.iter().map(|event| delivery(event, at)));
        if page.next_page_token.is_empty() {
            return Ok(());
        }
        request.page_token = page.next_page_token;
    }
}

/// Samples the counters of the instances in turn, until the end of publishing.
async fn watch(round: Arc<Round>, mut rng: Rng) {
    let mut next = Instant::now();
    while !round.published.is_cancelled() && !round.given_up.is_cancelled() {
        sample(&round, rng.usize(..round.cluster.size())).await;
        next = (next + LOOKS).max(Instant::now());
        sleep_until(next).await;
    }
}

/// Samples the counters once. Returns whether there was a response.
pub async fn sample(round: &Round, instance: usize) -> Option<Sample> {
    let mut client = client(round, instance);
    let invoked = round.recorder.now();
    let answer = timeout(PATIENCE, client.get_stats(GetStatsRequest::default())).await.ok()?;
    match answer {
        Ok(answer) => {
            let returned = round.recorder.now();
            let stats = answer.into_inner();
            let totals = counters(&stats);
            let topics = topic_counters(stats);
            let sample = Sample { invoked, returned, instance, totals, topics };
            round.recorder.sample(sample.clone());
            Some(sample)
        }
        Err(status) => {
            look_at(round, "GetStats", &status);
            None
        }
    }
}

fn patience(failures: u32) -> Duration {
    PATIENCE * 2_u32.pow(failures.min(3))
}

fn client(round: &Round, instance: usize) -> Client {
    Client::new(round.cluster.channel(instance))
}

fn delivery(event: &Event, at: Moment) -> Delivery {
    let payload = match &event.content {
        Some(event::Content::PayloadJson(text)) => text,
        _ => "no text",
    };
    let content = workload::content(&event.source, payload);
    Delivery { key: key(&event.topic, &event.event_id), content, at }
}

/// Read requests are valid, so they must not be rejected as invalid.
fn look_at(round: &Round, doing: &str, status: &Status) {
    round.recorder.look_at(doing, status);
    if status.code() == Code::InvalidArgument {
        round.recorder.dirt(format!("{doing} was answered {status}"));
    }
}
