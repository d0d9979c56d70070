//! `stats --watch`: refreshes the counters and shows their rates.

use std::{
    io::{self, IsTerminal, Write},
    process::ExitCode,
    time::{Duration, Instant},
};

use tonic::Status;

use super::{as_json, as_table};
use crate::{
    cli::{
        Output,
        client::{Client, Refused, may_recover},
        print, print_json,
        terminal::tell,
    },
    proto::v1::{GetStatsRequest, GetStatsResponse},
};

/// Terminal control sequences: move to the top left; clear the rest of a line or of the screen.
const HOME: &str = "\x1b[H";
const WIPE_LINE: &str = "\x1b[K\n";
const WIPE_BELOW: &str = "\x1b[J";
const WIPE_ALL: &str = "\x1b[2J";

/// Parses an interval: seconds, or a number with a unit, such as 500ms.
pub(super) fn interval(text: &str) -> Result<Duration, String> {
    let seconds = text.parse::<f64>().ok().and_then(|s| Duration::try_from_secs_f64(s).ok());
    let interval = match seconds {
        Some(interval) => Some(interval),
        None => humantime::parse_duration(text).ok(),
    };
    interval
        .filter(|interval| {
            (Duration::from_millis(10)..=Duration::from_secs(86_400)).contains(interval)
        })
        .ok_or_else(|| "must be between 10ms and 24h, such as 2s or 500ms".to_owned())
}

/// Rates per second since the previous sample.
#[derive(Debug, Clone, Copy)]
struct Rates {
    received: f64,
    duplicates: f64,
}

/// The counters at one instant.
#[derive(Debug)]
struct Sample {
    at: Instant,
    received: i64,
    duplicates: i64,
}

impl Sample {
    fn of(stats: &GetStatsResponse) -> Self {
        Self { at: Instant::now(), received: stats.received, duplicates: stats.duplicate_dropped }
    }

    /// `None` if a counter decreased, which means that the database was replaced.
    fn rates_since(&self, before: &Self) -> Option<Rates> {
        let seconds = (self.at - before.at).as_secs_f64();
        let rate = |now: i64, before: i64| {
            (now >= before && seconds > 0.0).then(|| (now - before) as f64 / seconds)
        };
        Some(Rates {
            received: rate(self.received, before.received)?,
            duplicates: rate(self.duplicates, before.duplicates)?,
        })
    }
}

/// Shows the counters until Ctrl-C. Retries while the service is unavailable.
pub(super) async fn run(
    client: Client,
    request: GetStatsRequest,
    every: Duration,
    output: Output,
) -> anyhow::Result<ExitCode> {
    tokio::select! {
        shown = show(client, request, every, output) => shown.map(|()| ExitCode::SUCCESS),
        interrupted = tokio::signal::ctrl_c() => {
            interrupted?;
            Ok(ExitCode::SUCCESS)
        }
    }
}

async fn show(
    mut client: Client,
    request: GetStatsRequest,
    every: Duration,
    output: Output,
) -> anyhow::Result<()> {
    let narrowed = !request.topic.is_empty();
    let in_place = output == Output::Table && io::stdout().is_terminal();
    let mut ticks = tokio::time::interval(every);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut before: Option<Sample> = None;
    let mut away = false;
    if in_place {
        writeln!(io::stdout(), "{WIPE_ALL}")?;
    }
    loop {
        ticks.tick().await;
        let stats = match client.get_stats(request.clone()).await {
            Ok(response) => response.into_inner(),
            Err(status) if may_recover(&status) => {
                tell_away(&mut away, status);
                continue;
            }
            Err(status) => return Err(Refused(status).into()),
        };
        if std::mem::take(&mut away) {
            tell("event-aggregator: service available again");
        }
        let sample = Sample::of(&stats);
        let rates = before.as_ref().and_then(|before| sample.rates_since(before));
        before = Some(sample);
        match output {
            Output::Table if in_place => {
                let text = people(&stats, narrowed, rates).replace('\n', WIPE_LINE);
                // Not escaped again: the table escapes its cells.
                writeln!(
                    io::stdout(),
                    "{HOME}{text}{WIPE_LINE}Press Ctrl-C to exit{WIPE_LINE}{WIPE_BELOW}"
                )?;
            }
            Output::Table => print(people(&stats, narrowed, rates) + "\n")?,
            // The samples have no end, so they cannot be one JSON document.
            Output::Json | Output::Ndjson => print_json(program(&stats, rates))?,
        }
    }
}

fn tell_away(away: &mut bool, status: Status) {
    if !std::mem::replace(away, true) {
        tell(format_args!("event-aggregator: service unavailable ({}); retrying", Refused(status)));
    }
}

fn people(stats: &GetStatsResponse, narrowed: bool, rates: Option<Rates>) -> String {
    let rates = match rates {
        Some(Rates { received, duplicates }) => {
            format!("{received:.0} events/s, {duplicates:.0} of them duplicates")
        }
        None => "measuring".to_owned(),
    };
    format!("{}\n{rates}", as_table(stats, narrowed))
}

fn program(stats: &GetStatsResponse, rates: Option<Rates>) -> serde_json::Value {
    let mut line = as_json(stats);
    line["received_per_second"] = rates.map(|rates| rates.received).into();
    line["duplicates_per_second"] = rates.map(|rates| rates.duplicates).into();
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intervals_are_seconds_or_have_a_unit() {
        for (text, millis) in [("2", 2_000), ("0.5", 500), ("2s", 2_000), ("500ms", 500)] {
            assert_eq!(interval(text), Ok(Duration::from_millis(millis)), "{text}");
        }
        for text in ["0", "-1", "soon", "", "1e300", "NaN", "2d"] {
            assert!(interval(text).is_err(), "{text}");
        }
    }

    #[test]
    fn rates_are_per_second_and_never_negative() {
        let at = Instant::now();
        let sample = |seconds, received, duplicates| Sample {
            at: at + Duration::from_secs(seconds),
            received,
            duplicates,
        };
        let rates = sample(2, 30, 6).rates_since(&sample(0, 10, 2)).expect("rates");
        assert_eq!((rates.received, rates.duplicates), (10.0, 2.0));
        assert!(sample(2, 3, 0).rates_since(&sample(0, 10, 2)).is_none());
        assert!(sample(0, 10, 2).rates_since(&sample(0, 10, 2)).is_none());
    }
}
