//! Summary of all rounds.

use std::{collections::BTreeMap, fmt, time::Duration};

use crate::{
    Store, checker,
    history::{Fault, History, Outcome},
};

/// Sums over the rounds of one store.
#[derive(Debug, Clone, Default)]
pub struct Sums {
    pub rounds: usize,
    /// Rounds in which no fault occurred, because all came too late or had no target.
    pub unharmed: usize,
    /// Attempts to publish, each of one event.
    pub attempts: usize,
    /// Attempts with a known outcome.
    pub acknowledged: usize,
    /// Attempts without a known outcome.
    pub unknown: usize,
    /// Events that subscribers and listings read.
    pub reads: usize,
    /// Responses of GetStats.
    pub samples: usize,
    /// Number of times subscribers resumed from a cursor.
    pub resumed: usize,
    /// Maximum time from the healing of all faults to the last response of a round.
    pub wait: Duration,
    pub violations: usize,
    pub faults: BTreeMap<&'static str, usize>,
}

impl Sums {
    pub fn of(history: &History, violations: usize) -> Self {
        let outcomes = || history.attempts.iter().map(|attempt| attempt.outcome);
        let is_acknowledged = |outcome: &Outcome| {
            matches!(outcome, Outcome::Accepted | Outcome::Duplicate | Outcome::Conflict)
        };
        let listed = history.listings.iter().map(|listing| listing.events.len());
        let delivered = history.readers.iter().map(|reader| reader.deliveries.len());
        let mut faults = BTreeMap::new();
        for Fault { kind, .. } in &history.faults {
            *faults.entry(*kind).or_default() += 1;
        }
        Self {
            rounds: 1,
            unharmed: usize::from(history.faults.is_empty()),
            attempts: history.attempts.len(),
            acknowledged: outcomes().filter(is_acknowledged).count(),
            unknown: outcomes().filter(|outcome| matches!(outcome, Outcome::Unknown(_))).count(),
            reads: delivered.chain(listed).sum(),
            samples: history.samples.len(),
            resumed: history.readers.iter().map(|reader| reader.resumed).sum(),
            wait: checker::wait(history),
            violations,
            faults,
        }
    }

    pub fn add(&mut self, other: &Self) {
        self.rounds += other.rounds;
        self.unharmed += other.unharmed;
        self.attempts += other.attempts;
        self.acknowledged += other.acknowledged;
        self.unknown += other.unknown;
        self.reads += other.reads;
        self.samples += other.samples;
        self.resumed += other.resumed;
        self.wait = self.wait.max(other.wait);
        self.violations += other.violations;
        for (kind, count) in &other.faults {
            *self.faults.entry(kind).or_default() += count;
        }
    }

    pub fn fault_count(&self) -> usize {
        self.faults.values().sum()
    }
}

impl fmt::Display for Sums {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} faults, {} attempts, {} acknowledged, {} unknown, {} reads, {} samples, alive \
             after {:.1} s, {} violations",
            self.fault_count(),
            self.attempts,
            self.acknowledged,
            self.unknown,
            self.reads,
            self.samples,
            self.wait.as_secs_f64(),
            self.violations
        )
    }
}

/// Formats the sums as Markdown.
pub fn table(sums: &BTreeMap<Store, Sums>, command: &str, took: Duration) -> String {
    let stores: Vec<String> = sums.keys().map(ToString::to_string).collect();
    let mut text = format!("| | {} |\n|---|{}\n", stores.join(" | "), "---:|".repeat(sums.len()));
    let mut row = |name: &str, number: &dyn Fn(&Sums) -> usize| {
        let cell = |sums| match number(sums) {
            0 if name.starts_with("fault: ") => "–".to_owned(),
            number => grouped(number),
        };
        let numbers: Vec<String> = sums.values().map(cell).collect();
        text.push_str(&format!("| {name} | {} |\n", numbers.join(" | ")));
    };
    row("rounds", &|sums| sums.rounds);
    row("faults", &Sums::fault_count);
    row("rounds without a fault", &|sums| sums.unharmed);
    row("attempts to publish an event", &|sums| sums.attempts);
    row("of these, answers checked", &|sums| sums.acknowledged);
    row("of these, without a known outcome", &|sums| sums.unknown);
    row("events read and compared", &|sums| sums.reads);
    row("samples of the counters", &|sums| sums.samples);
    row("subscriptions resumed", &|sums| sums.resumed);
    row("seconds from healing to the last answer, at most", &|sums| {
        sums.wait.as_secs_f64().ceil() as usize
    });
    row("**violations**", &|sums| sums.violations);
    let kinds: Vec<&str> = sums.values().flat_map(|sums| sums.faults.keys().copied()).collect();
    for kind in kinds.into_iter().collect::<std::collections::BTreeSet<_>>() {
        row(&format!("fault: {kind}"), &|sums| sums.faults.get(kind).copied().unwrap_or(0));
    }
    text.push_str(&format!("\nTook {} on {}: `{command}`\n", whole_seconds(took), machine()));
    text
}

fn whole_seconds(time: Duration) -> humantime::FormattedDuration {
    humantime::format_duration(Duration::from_secs(time.as_secs()))
}

/// Formats a number with thousands separators.
fn grouped(number: usize) -> String {
    let digits = number.to_string();
    let groups = digits.as_bytes().rchunks(3).rev();
    let groups: Vec<_> = groups.map(String::from_utf8_lossy).collect();
    groups.join(",")
}

fn machine() -> String {
    let processor = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model =
        processor.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    let model = model.map_or("an unknown processor", |(_, model)| model).to_owned();
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    format!("{cores} cores of {model}")
}
