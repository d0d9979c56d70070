//! Measures how much one greedy identity, with access to one topic and a rate limit of one event
//! per second, slows down another identity. Intervals with and without the attack alternate.

use std::{collections::HashSet, path::Path};

use event_aggregator::{
    proto::v1::{
        GetStatsRequest, ListEventsRequest, PayloadFormat, SubscribeRequest,
        subscribe_response::Frame as Sent,
    },
    testing::limits::MAX_MESSAGE_BYTES,
};
use prost::Message;
use testkit::http2::{
    DATA, END_STREAM, HEADERS, PING, RST_STREAM, SETTINGS, WINDOW_UPDATE, begin_as, frame, message,
    stream,
};
use tokio::{
    sync::mpsc,
    time::{timeout, timeout_at},
};
use tokio_util::task::AbortOnDropHandle;
use tonic::Status;

use super::{
    identities::{Caller, caller, entry, request},
    *,
};

/// Timeout of the victim's calls.
const PATIENCE: Duration = Duration::from_secs(10);

#[derive(Clone, Copy, Debug)]
enum Attack {
    /// PublishStreams without requests.
    Streams,
    Subscriptions,
    /// Messages of 8 MiB that are sent only in part.
    Messages,
    /// Listings of large events whose responses are not read.
    Listings,
}

impl Attack {
    const ALL: [Self; 4] = [Self::Streams, Self::Subscriptions, Self::Messages, Self::Listings];

    /// Number of connections, and of calls per connection.
    fn calls(self) -> (usize, usize) {
        match self {
            Self::Streams => (9, 1_000),
            Self::Subscriptions => (3, 700),
            Self::Messages => (1, 17),
            Self::Listings => (1, 220),
        }
    }

    /// Interval at which ended calls are restarted.
    fn pause(self) -> Duration {
        Duration::from_millis(if matches!(self, Self::Messages) { 100 } else { 1_000 })
    }

    /// The start of the connection. For unread responses, with windows of zero.
    fn settings(self) -> &'static [u8] {
        if matches!(self, Self::Listings) { &[0, 4, 0, 0, 0, 0] } else { &[] }
    }

    /// The frames of one call.
    fn call(self, stream: u32) -> Vec<u8> {
        let (method, sent) = match self {
            Self::Streams => ("PublishStream", Vec::new()),
            Self::Subscriptions => {
                let topics = vec!["greedy".to_owned()];
                let request = SubscribeRequest { topics, ..SubscribeRequest::default() };
                ("Subscribe", message(stream, &request.encode_to_vec(), END_STREAM))
            }
            Self::Messages => {
                let head = [&[0][..], &(MAX_MESSAGE_BYTES as u32).to_be_bytes()].concat();
                ("Publish", frame(DATA, 0, stream, &head))
            }
            Self::Listings => {
                let request = ListEventsRequest {
                    topic: "greedy".to_owned(),
                    payload_format: PayloadFormat::Json.into(),
                    ..ListEventsRequest::default()
                };
                ("ListEvents", message(stream, &request.encode_to_vec(), END_STREAM))
            }
        };
        [begin_as("greedy", method, stream), sent].concat()
    }

    /// Keeps a number of calls in progress over a connection, until it is closed.
    async fn hold(
        self,
        address: SocketAddr,
        calls: usize,
        answered: &AtomicU64,
    ) -> std::io::Result<()> {
        let (mut read, mut write) = TcpStream::connect(address).await?.into_split();
        let window = frame(WINDOW_UPDATE, 0, 0, &(1_u32 << 30).to_be_bytes());
        let settings = frame(SETTINGS, 0, 0, self.settings());
        let begin = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
        write.write_all(&[&begin[..], &settings, &window].concat()).await?;
        let (frames, mut received) = mpsc::channel(1_024);
        let _reading = AbortOnDropHandle::new(tokio::spawn(async move {
            loop {
                let mut head = [0; 9];
                read.read_exact(&mut head).await?;
                let [a, b, c, kind, flags, number @ ..] = head;
                let mut content = vec![0; u32::from_be_bytes([0, a, b, c]) as usize];
                read.read_exact(&mut content).await?;
                let frame = (kind, flags, u32::from_be_bytes(number), content);
                if frames.send(frame).await.is_err() {
                    return std::io::Result::Ok(());
                }
            }
        }));
        let (mut open, mut begun) = (HashSet::new(), 0);
        let mut ticks = interval(self.pause());
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let received = tokio::select! {
                _ = ticks.tick() => {
                    let mut sent = Vec::new();
                    while open.len() < calls {
                        sent.extend(self.call(stream(begun)));
                        open.insert(stream(begun));
                        begun += 1;
                    }
                    write.write_all(&sent).await?;
                    continue;
                }
                received = received.recv() => received,
            };
            // Flag 1 is ACK in frames of the connection, and END_STREAM in frames of a call.
            match received {
                None => return Ok(()),
                Some((kind @ (PING | SETTINGS), 0, _, content)) => {
                    let content = if kind == PING { content } else { Vec::new() };
                    write.write_all(&frame(kind, 1, 0, &content)).await?;
                }
                Some((kind, flags, number, _)) => {
                    if kind == HEADERS {
                        answered.fetch_add(1, Ordering::Relaxed);
                    }
                    if kind == RST_STREAM || (number > 0 && flags & END_STREAM > 0) {
                        open.remove(&number);
                    }
                }
            }
        }
    }
}

/// Results of the victim's calls of one kind.
struct Tally {
    latencies: Histogram<u64>,
    failed: u64,
    error: Option<Status>,
}

impl Tally {
    fn new() -> Self {
        let latencies = Histogram::new(3).expect("three digits");
        Self { latencies, failed: 0, error: None }
    }

    fn add(&mut self, other: Self) {
        self.latencies += other.latencies;
        self.failed += other.failed;
        self.error = self.error.take().or(other.error);
    }

    fn record(&mut self, latency: Duration) {
        self.latencies.record(latency.as_micros() as u64).expect("it grows");
    }

    fn fail(&mut self, error: Status) {
        self.failed += 1;
        self.error.get_or_insert(error);
    }

    fn calls(&self) -> u64 {
        self.latencies.len() + self.failed
    }
}

const MAX_CALLS: [&str; 5] = ["publish", "publish 256 KiB", "stats", "list 200", "delivery"];

pub async fn measure(url: &str, folder: &Path, arguments: &Arguments) {
    let greedy = entry("greedy", &["greedy"]) + "events_per_second = 1\n";
    let entries = greedy + &entry("victim", &["victim*"]);
    println!(
        "  greedy         call              calls      %   p50 ms: alone, attacked, ratio      p99 ms: alone, attacked, ratio"
    );
    for attack in Attack::ALL {
        let service = identities::start(url, folder, &entries);
        let mut greedy = caller(service.address, "greedy").await;
        let mut victim = caller(service.address, "victim").await;
        for n in 0..3 {
            let payload = filler(800 << 10);
            let large = request("greedy", [(format!("large-{n}"), payload)]);
            greedy.publish(large).await.expect("an answer");
        }
        let listed = (0..200).map(|n| (format!("listed-{n}"), filler(1 << 10)));
        victim.publish(request("victim-listed", listed)).await.expect("an answer");
        let [mut alone, mut attacked] = [(); 2].map(|()| MAX_CALLS.map(|_| Tally::new()));
        for _ in 0..arguments.rounds {
            slice(&victim, arguments, &mut alone).await;
            let mut attacking = begin(attack, service.address).await;
            slice(&victim, arguments, &mut attacked).await;
            attacking.shutdown().await;
            sleep(Duration::from_millis(500)).await;
        }
        print(attack, &alone, &attacked);
        println!("  {:<14} memory at most {} MiB", name(attack), peak_mib(service.id()));
    }
}

/// Waits until all calls of an attack have started.
async fn begin(attack: Attack, address: SocketAddr) -> JoinSet<()> {
    let mut attacking = JoinSet::new();
    let answered = Arc::new(AtomicU64::new(0));
    let (connections, calls) = attack.calls();
    for _ in 0..connections {
        let answered = Arc::clone(&answered);
        attacking.spawn(async move {
            loop {
                let _ = attack.hold(address, calls, &answered).await;
                sleep(Duration::from_millis(100)).await;
            }
        });
    }
    // Partial messages get no response.
    if !matches!(attack, Attack::Messages) {
        let begun = Instant::now();
        while answered.load(Ordering::Relaxed) < (connections * calls) as u64
            && begun.elapsed() < Duration::from_secs(20)
        {
            sleep(Duration::from_millis(10)).await;
        }
    }
    // The first ones have been restarted by now.
    sleep(Duration::from_secs(1)).await;
    attacking
}

/// Runs the victim's calls for a number of seconds.
async fn slice(victim: &Caller, arguments: &Arguments, tallies: &mut [Tally; 5]) {
    let epoch = Instant::now();
    let mut reader = victim.clone();
    let request_feed = SubscribeRequest {
        topics: vec!["victim".to_owned()],
        cursor: "end".to_owned(),
        ..SubscribeRequest::default()
    };
    let subscribing = async {
        let mut feed = reader.subscribe(request_feed).await?.into_inner();
        // The first frame indicates that the subscription has caught up.
        feed.message().await?;
        Ok(feed)
    };
    let no_answer = |_| Err(Status::deadline_exceeded("no answer in time"));
    let subscribed = timeout(PATIENCE, subscribing).await.unwrap_or_else(no_answer);
    let until = Instant::now() + Duration::from_secs(arguments.seconds);
    let delivering = tokio::spawn(async move {
        let mut tally = Tally::new();
        match subscribed {
            // A grace period for the last events.
            Ok(feed) => {
                let end = (until + Duration::from_secs(1)).into();
                let _ = timeout_at(end, deliver(feed, epoch, &mut tally)).await;
            }
            Err(error) => tally.fail(error),
        }
        tally
    });
    let publish = |topic: &'static str, payload: String| {
        let victim = victim.clone();
        move || {
            let mut victim = victim.clone();
            let id = format!("{}-{}", epoch.elapsed().as_micros(), uuid::Uuid::new_v4());
            let request = request(topic, [(id, payload.clone())]);
            async move { victim.publish(request).await.map(drop) }
        }
    };
    let stats = || {
        let mut victim = victim.clone();
        let request = GetStatsRequest { topic: "victim".to_owned(), max_topics: 0 };
        async move { victim.get_stats(request).await.map(drop) }
    };
    let list = || {
        let mut victim = victim.clone();
        let request = ListEventsRequest {
            topic: "victim-listed".to_owned(),
            page_size: 200,
            ..ListEventsRequest::default()
        };
        async move { victim.list_events(request).await.map(drop) }
    };
    let millis = Duration::from_millis;
    let (small, large, stats, list) = tokio::join!(
        paced(millis(20), until, publish("victim", "{}".to_owned())),
        paced(millis(500), until, publish("victim-large", filler(256 << 10))),
        paced(millis(100), until, stats),
        paced(millis(250), until, list),
    );
    let mut delivery = delivering.await.expect("deliveries");
    let lost = small.latencies.len().saturating_sub(delivery.calls());
    delivery.failed += lost;
    for (tally, more) in tallies.iter_mut().zip([small, large, stats, list, delivery]) {
        tally.add(more);
    }
}

/// Calls at a fixed rate. Latencies are measured from the scheduled time of each call.
async fn paced<F>(every: Duration, until: Instant, mut call: impl FnMut() -> F) -> Tally
where
    F: Future<Output = Result<(), Status>> + Send + 'static,
{
    let mut calls = JoinSet::new();
    let mut ticks = interval(every);
    while Instant::now() < until {
        let due = ticks.tick().await;
        let call = call();
        calls.spawn(async move {
            let no_answer = |_| Err(Status::deadline_exceeded("no answer in time"));
            let answer = timeout(PATIENCE, call).await.unwrap_or_else(no_answer);
            answer.map(|()| due.elapsed())
        });
    }
    let mut tally = Tally::new();
    for answer in calls.join_all().await {
        match answer {
            Ok(latency) => tally.record(latency),
            Err(error) => tally.fail(error),
        }
    }
    tally
}

/// Receives events whose ids contain the time of their publish.
async fn deliver(
    mut feed: tonic::Streaming<event_aggregator::proto::v1::SubscribeResponse>,
    epoch: Instant,
    tally: &mut Tally,
) {
    loop {
        let frame = match feed.message().await {
            Ok(Some(frame)) => frame.frame,
            Ok(None) => return tally.fail(Status::unavailable("the subscription ended")),
            Err(error) => return tally.fail(error),
        };
        let Some(Sent::Events(batch)) = frame else { continue };
        for event in batch.events {
            let published = event.event_id.split('-').next().and_then(|it| it.parse().ok());
            let published = Duration::from_micros(published.expect("a time"));
            tally.record(epoch.elapsed().saturating_sub(published));
        }
    }
}

fn print(attack: Attack, alone: &[Tally; 5], attacked: &[Tally; 5]) {
    for ((call, alone), attacked) in MAX_CALLS.iter().zip(alone).zip(attacked) {
        let columns = [0.5, 0.99].map(|quantile| {
            let [alone, attacked] =
                [alone, attacked].map(|it| it.latencies.value_at_quantile(quantile) as f64 / 1e3);
            format!("{alone:>14.2} {attacked:>9.2} {:>6.2}", attacked / alone)
        });
        let success = attacked.latencies.len() as f64 * 100.0 / attacked.calls() as f64;
        let calls = attacked.calls();
        let (name, [p50, p99]) = (name(attack), columns);
        println!("  {name:<14} {call:<16} {calls:>6} {success:>6.1} {p50}    {p99}");
        for (when, tally) in [("alone", alone), ("attacked", attacked)] {
            if let Some(error) = &tally.error {
                println!("    {when}: {} failed, first: {error}", tally.failed);
            }
        }
    }
}

fn name(attack: Attack) -> String {
    format!("{attack:?}").to_lowercase()
}

/// A payload of about this many bytes.
fn filler(bytes: usize) -> String {
    format!(r#"{{"data":"{}"}}"#, "x".repeat(bytes))
}
