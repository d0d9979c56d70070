//! Measures the effect of small duplicates of large stored events, sent by an identity with a rate
//! limit, on others: each duplicate is compared with a payload of 1 MiB. Intervals with and without
//! the attack alternate.

use std::path::Path;

use event_aggregator::{store::lane_of, testing::limits::MAX_PAYLOAD_BYTES};
use testkit::http::Connection;
use tonic_types::StatusExt;

use super::{
    identities::{Caller, caller, entry, request},
    *,
};

/// Duplicates of large events per request.
const EVENTS: usize = 31;

/// Concurrent requests of the attack: one, and as many as a burst of 1,000 events permits before
/// the first one is charged.
const PARALLEL: [usize; 2] = [1, 32];

const TOPIC: &str = "attack";

/// A payload that is expensive to compare.
#[derive(Clone, Copy, Debug)]
enum Shape {
    /// Nested lists, with small items in the innermost list.
    Deep,
    /// An object with many unordered keys.
    Wide,
    /// An object with one key many times.
    Repeated,
}

impl Shape {
    const ALL: [Self; 3] = [Self::Deep, Self::Wide, Self::Repeated];

    /// A payload of 1 MiB.
    fn stored(self) -> String {
        let fill = |item: usize| (MAX_PAYLOAD_BYTES - 64) / item;
        match self {
            Self::Deep => {
                let items = vec![r#""""#; fill(3)].join(",");
                format!(r#"{{"a":{}{items}{}}}"#, "[".repeat(23), "]".repeat(23))
            }
            Self::Wide => {
                let mut members: Vec<String> =
                    (0..fill(13)).map(|n| format!(r#""k{n:06}":"""#)).collect();
                fastrand::shuffle(&mut members);
                format!(r#"{{"a":{{{}}}}}"#, members.join(","))
            }
            Self::Repeated => {
                let members: Vec<String> =
                    (0..fill(6)).map(|n| format!(r#""b":{}"#, n % 2)).collect();
                format!("{{{}}}", members.join(","))
            }
        }
    }

    /// Small payloads that differ from the large one only after the first token.
    fn repeats(self) -> Vec<String> {
        let repeats = match self {
            Self::Deep => vec![r#"{}"#, r#"{"a":1}"#, r#"{"a":[[[[""]]]]}"#],
            Self::Wide => vec![r#"{"a":1}"#, r#"{"a":{}}"#, r#"{"a":{"k000000":"","k000001":""}}"#],
            Self::Repeated => vec![r#"{"b":0}"#, r#"{"b":1}"#, r#"{"b":{}}"#],
        };
        repeats.into_iter().map(str::to_owned).collect()
    }

    fn id(self, n: usize) -> String {
        format!("{self:?}-{n}")
    }
}

struct Attack {
    caller: Caller,
    shape: Shape,
    parallel: usize,
}

impl Attack {
    /// Sends requests with duplicates of all large events, as often as the rate limit permits.
    /// Returns the number of requests.
    async fn run(self, until: Instant) -> u64 {
        let repeats = self.shape.repeats();
        let small = (0..EVENTS).map(|n| (self.shape.id(n), repeats[n % repeats.len()].clone()));
        let request = request(TOPIC, small);
        let mut tasks = JoinSet::new();
        for _ in 0..self.parallel {
            tasks.spawn(repeat(self.caller.clone(), request.clone(), until));
        }
        tasks.join_all().await.into_iter().sum()
    }
}

/// Measurements of intervals of one kind.
struct Seen {
    health: Histogram<u64>,
    /// Latencies of publishes to each of the victim's topics.
    publishes: Vec<Histogram<u64>>,
    refused: u64,
    attacks: u64,
    processor: f64,
    seconds: f64,
}

impl Seen {
    fn new(topics: usize) -> Self {
        Self {
            health: histogram(),
            publishes: (0..topics).map(|_| histogram()).collect(),
            refused: 0,
            attacks: 0,
            processor: 0.0,
            seconds: 0.0,
        }
    }
}

pub async fn measure(url: &str, folder: &Path, lanes: u16, arguments: &Arguments) {
    let names = || (0..).map(|n| format!("victim-{n}"));
    let is_same = |topic: &String| lane_of(topic, lanes) == lane_of(TOPIC, lanes);
    let mut topics = vec![names().find(is_same).expect("endless")];
    if lanes > 1 {
        topics.extend(names().find(|topic| !is_same(topic)));
    }
    let mut entries = entry("loader", &[TOPIC]) + &entry("victim", &["victim-*"]);
    // One per interval, so that none is charged for the comparisons of another interval.
    for (shape, parallel, round) in slices(arguments) {
        entries += &entry(&attacker(shape, parallel, round), &[TOPIC]);
        entries += "events_per_second = 100\nburst = 1000\n";
    }
    let service = identities::start(url, folder, &entries);
    let mut loader = caller(service.address, "loader").await;
    let victim = caller(service.address, "victim").await;
    println!(
        "  repeats      call                    p99 ms: alone, attacked, ratio      worst ms: alone, attacked, ratio"
    );
    for shape in Shape::ALL {
        for n in 0..EVENTS {
            let large = request(TOPIC, [(shape.id(n), shape.stored())]);
            loader.publish(large).await.expect("an answer");
        }
        for parallel in PARALLEL {
            let [mut alone, mut attacked] = [(); 2].map(|()| Seen::new(topics.len()));
            for round in 0..arguments.rounds {
                slice(&service, &victim, &topics, None, arguments, &mut alone).await;
                let name = attacker(shape, parallel, round);
                let caller = caller(service.address, &name).await;
                let attack = Some(Attack { caller, shape, parallel });
                slice(&service, &victim, &topics, attack, arguments, &mut attacked).await;
            }
            print(shape, parallel, &alone, &attacked);
        }
    }
}

fn slices(arguments: &Arguments) -> impl Iterator<Item = (Shape, usize, usize)> {
    let rounds = arguments.rounds;
    let shapes = Shape::ALL.into_iter();
    shapes.flat_map(move |shape| {
        let parallels = PARALLEL.into_iter();
        parallels.flat_map(move |parallel| (0..rounds).map(move |round| (shape, parallel, round)))
    })
}

/// Name of the attacking identity of an interval.
fn attacker(shape: Shape, parallel: usize, round: usize) -> String {
    format!("{shape:?}-{parallel}-{round}")
}

/// Measures for a number of seconds.
async fn slice(
    service: &Service,
    victim: &Caller,
    topics: &[String],
    attack: Option<Attack>,
    arguments: &Arguments,
    seen: &mut Seen,
) {
    let (begun, processor) = (Instant::now(), processor_seconds(service.id()));
    let until = begun + Duration::from_secs(arguments.seconds);
    let probing = tokio::spawn(probe(service.address, until));
    let publishing = tokio::spawn(publish(victim.clone(), topics.to_vec(), until));
    if let Some(attack) = attack {
        seen.attacks += attack.run(until).await;
    }
    seen.health += probing.await.expect("probes");
    for (topic, latency) in publishing.await.expect("publishes") {
        match latency {
            Some(latency) => record(&mut seen.publishes[topic], latency),
            None => seen.refused += 1,
        }
    }
    seen.processor += processor_seconds(service.id()) - processor;
    seen.seconds += begun.elapsed().as_secs_f64();
}

/// Sends a request repeatedly. After a rejection, waits for its retry delay.
async fn repeat(mut attacker: Caller, request: PublishRequest, until: Instant) -> u64 {
    let mut done = 0;
    while Instant::now() < until {
        match attacker.publish(request.clone()).await {
            Ok(answer) => {
                assert_eq!(answer.into_inner().duplicate_dropped, EVENTS as i64);
                done += 1;
            }
            Err(status) => {
                let delay = status.get_details_retry_info().and_then(|info| info.retry_delay);
                let delay = delay.unwrap_or_else(|| panic!("not to be retried: {status}"));
                sleep(delay.min(until.saturating_duration_since(Instant::now()))).await;
            }
        }
    }
    done
}

/// Asks for health every 5 ms over one connection. The latencies are from when each was due.
async fn probe(address: SocketAddr, until: Instant) -> Histogram<u64> {
    const REQUEST: &[u8] = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n";
    let mut connection = Connection::open(address).await.expect("connect");
    let mut latencies = histogram();
    let mut ticks = interval(Duration::from_millis(5));
    while Instant::now() < until {
        let due = ticks.tick().await;
        let response = connection.call(REQUEST).await.expect("a response");
        assert_eq!(response.status, 200, "{}", response.head);
        record(&mut latencies, due.elapsed());
    }
    latencies
}

/// Publishes an event every 10 ms, to the topics in turn. Returns the topic of each, and its
/// latency from the scheduled time unless it was rejected.
async fn publish(
    victim: Caller,
    topics: Vec<String>,
    until: Instant,
) -> Vec<(usize, Option<Duration>)> {
    let mut calls = JoinSet::new();
    let mut ticks = interval(Duration::from_millis(10));
    for topic in (0..topics.len()).cycle() {
        let due = ticks.tick().await;
        if Instant::now() >= until {
            break;
        }
        let id = uuid::Uuid::new_v4().to_string();
        let request = request(&topics[topic], [(id, "{}".to_owned())]);
        let mut victim = victim.clone();
        calls.spawn(async move {
            let answer = victim.publish(request).await;
            (topic, answer.is_ok().then(|| due.elapsed()))
        });
    }
    calls.join_all().await
}

fn print(shape: Shape, parallel: usize, alone: &Seen, attacked: &Seen) {
    let shape = format!("{shape:?} x{parallel}").to_lowercase();
    let row = |call: &str, alone: &Histogram<u64>, attacked: &Histogram<u64>| {
        let columns = [0.99, 1.0].map(|quantile| {
            let [alone, attacked] =
                [alone, attacked].map(|it| it.value_at_quantile(quantile) as f64 / 1e3);
            format!("{alone:>14.2} {attacked:>9.2} {:>6.2}", attacked / alone)
        });
        println!("  {shape:<12} {call:<20} {}    {}", columns[0], columns[1]);
    };
    row("/healthz", &alone.health, &attacked.health);
    let calls = ["publish, same lane", "publish, other lane"];
    for (n, call) in calls.iter().enumerate().take(alone.publishes.len()) {
        row(call, &alone.publishes[n], &attacked.publishes[n]);
    }
    let processor = attacked.processor - alone.processor;
    println!(
        "  {shape:<12} {} requests of {EVENTS} repeats in {:.1} s, {:.1} ms of processor time each; publishes refused: \
         {} alone, {} attacked",
        attacked.attacks,
        attacked.seconds,
        processor * 1e3 / attacked.attacks as f64,
        alone.refused,
        attacked.refused,
    );
}

fn histogram() -> Histogram<u64> {
    Histogram::new(3).expect("three digits")
}

fn record(latencies: &mut Histogram<u64>, latency: Duration) {
    latencies.record(latency.as_micros() as u64).expect("it grows");
}

/// CPU time of a process, in user space and in the kernel.
fn processor_seconds(pid: u32) -> f64 {
    const TICKS_PER_SECOND: f64 = 100.0;
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).expect("stat");
    let (_, fields) = stat.rsplit_once(')').expect("a name");
    let times = fields.split_whitespace().skip(11).take(2);
    times.map(|ticks| ticks.parse::<f64>().expect("ticks")).sum::<f64>() / TICKS_PER_SECOND
}
