//! `verify`: checks the counters of a database against its events.

use std::{process::ExitCode, time::Duration};

use clap::Args;
use indicatif::ProgressBar;
use serde_json::json;

use super::{Output, Table, print, print_json};
use crate::{
    app::{self, Difference, Report},
    config::DatabaseArgs,
};

#[derive(Debug, Args)]
#[command(after_help = "\
Reads the database directly, in one snapshot, while services may be writing to it. Changes nothing.

  event-aggregator verify
  event-aggregator verify --database-url sqlite:data/events.db -o json

Exits with 0 if everything matches, and with 1 if anything differs or cannot be read.")]
pub(super) struct Verify {
    #[command(flatten)]
    database: DatabaseArgs,

    /// Output format [default: table on a terminal, else ndjson]
    #[arg(short, long, value_enum)]
    output: Option<Output>,
}

impl Verify {
    pub(super) async fn run(self) -> anyhow::Result<ExitCode> {
        // Drawn on standard error, only if that is a terminal.
        let spinner = ProgressBar::new_spinner().with_message("counting all events");
        spinner.enable_steady_tick(Duration::from_millis(100));
        let report = app::verify(&self.database.chosen()).await;
        spinner.finish_and_clear();
        let report = report?;
        match Output::or_suitable(self.output) {
            Output::Table => print(as_table(&report))?,
            Output::Json | Output::Ndjson => print_json(as_json(&report))?,
        }
        Ok(if report.is_exact() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }
}

fn as_table(report: &Report) -> String {
    let totals = report.totals;
    let mut rows = Table::new(["counter", "recorded", "recounted"]);
    rows.add_row(["unique", &totals.unique_processed.to_string(), &report.events.to_string()]);
    rows.add_row(["duplicates", &totals.duplicate_dropped.to_string(), ""]);
    rows.add_row(["conflicts", &totals.conflicts.to_string(), ""]);
    rows.add_row([
        "received",
        &totals.received.to_string(),
        &(report.events + totals.duplicate_dropped).to_string(),
    ]);
    let database = &report.database;
    if report.is_exact() {
        return format!("{rows}\nOK: {} topics match in {database}", report.topics);
    }
    let mut differences = Table::new(["check", "topic or lane", "recorded", "expected"]);
    for difference in &report.differences {
        differences.add_row([
            explain(difference).to_owned(),
            difference.of.clone(),
            number(difference.recorded),
            number(difference.actual),
        ]);
    }
    let more = report.difference_count - report.differences.len() as i64;
    let more = if more > 0 { format!("\nand {more} more") } else { String::new() };
    let count = report.difference_count;
    format!("{rows}\n\n{differences}{more}\nMISMATCH: {count} differences in {database}")
}

/// Name of the check, for people.
fn explain(difference: &Difference) -> &str {
    match difference.check.as_str() {
        "unique_processed" => "unique_processed of topic",
        "received" => "received of topic",
        "conflicts" => "conflicts of topic (at most)",
        "lane" => "lane of topic",
        "head" => "head of lane",
        "seq" => "events of lane",
        "first seq" => "first seq of lane",
        other => other,
    }
}

fn number(number: Option<i64>) -> String {
    number.map_or_else(|| "none".to_owned(), |number| number.to_string())
}

fn as_json(report: &Report) -> String {
    let differences = report.differences.iter().map(|difference| {
        json!({
            "check": difference.check,
            "of": difference.of,
            "recorded": difference.recorded,
            "actual": difference.actual,
        })
    });
    json!({
        "ok": report.is_exact(),
        "database": report.database,
        "received": report.totals.received,
        "unique_processed": report.totals.unique_processed,
        "duplicate_dropped": report.totals.duplicate_dropped,
        "conflicts": report.totals.conflicts,
        "topics": report.topics,
        "events": report.events,
        "difference_count": report.difference_count,
        "differences": differences.collect::<Vec<_>>(),
    })
    .to_string()
}
