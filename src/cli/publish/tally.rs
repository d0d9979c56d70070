//! Counts the outcomes of events.

use prost::Message;
use serde_json::json;

use super::simulate::Expected;
use crate::{
    cli::{
        Table,
        terminal::{one_line, tell},
    },
    proto::v1::{PublishResult, PublishStatus},
};

/// Maximum number of rejected lines that are printed.
const SHOWN_LINES: usize = 10;

/// What became of a line.
#[derive(Debug)]
pub(super) enum Outcome {
    Accepted,
    Duplicate,
    /// The fields that differ from the stored event.
    Conflict(String),
    /// The reason.
    Rejected(String),
}

impl From<PublishResult> for Outcome {
    fn from(result: PublishResult) -> Self {
        match result.status() {
            PublishStatus::Accepted => Self::Accepted,
            PublishStatus::Duplicate => Self::Duplicate,
            PublishStatus::Conflict => Self::Conflict(result.differing_fields.join(", ")),
            PublishStatus::Rejected | PublishStatus::Unspecified => {
                Self::Rejected(reason(result.error.unwrap_or_default()))
            }
        }
    }
}

/// Why an event was rejected: all its violations.
fn reason(error: tonic_types::Status) -> String {
    let faults = error.details.iter().filter(|any| any.type_url.ends_with("google.rpc.BadRequest"));
    let faults: Vec<String> = faults
        .filter_map(|any| tonic_types::pb::BadRequest::decode(&*any.value).ok())
        .flat_map(|details| details.field_violations)
        // A line calls its JSON payload `payload`.
        .map(|fault| (fault.field.replace("payload_json", "payload"), fault.description))
        .map(|(field, description)| format!("{field} {description}"))
        .collect();
    if faults.is_empty() { error.message } else { faults.join("; ") }
}

/// Number of events by outcome.
#[derive(Debug, Default)]
pub(super) struct Tally {
    accepted: u64,
    duplicate: u64,
    conflict: Lines,
    rejected: Lines,
    pub(super) reconnects: u64,
}

/// Lines that were rejected or conflict.
#[derive(Debug, Default)]
struct Lines {
    count: u64,
    /// The first of them, each with the reason.
    first: Vec<(u64, String)>,
}

impl Lines {
    fn add(&mut self, line: u64, reason: String) {
        self.count += 1;
        if self.first.len() < SHOWN_LINES {
            self.first.push((line, reason));
        }
    }

    fn print(&self, what: &str) {
        for (line, reason) in &self.first {
            tell(format_args!("line {line} {what}: {}", one_line(reason)));
        }
        let more = self.count - self.first.len() as u64;
        if more > 0 {
            tell(format_args!("and {more} more"));
        }
    }
}

impl Tally {
    pub(super) fn add(&mut self, line: u64, outcome: Outcome) {
        match outcome {
            Outcome::Accepted => self.accepted += 1,
            Outcome::Duplicate => self.duplicate += 1,
            Outcome::Conflict(fields) => self.conflict.add(line, fields),
            Outcome::Rejected(reason) => self.rejected.add(line, reason),
        }
    }

    pub(super) fn total(&self) -> u64 {
        self.accepted + self.duplicate + self.conflict.count + self.rejected.count
    }

    pub(super) fn has_rejected(&self) -> bool {
        self.rejected.count > 0
    }

    /// Whether the counts match a simulation. Events that were sent again may count as duplicates.
    pub(super) fn is_exactly(&self, expected: Expected) -> bool {
        let all = self.total() == expected.new + expected.repeated;
        all && self.conflict.count == 0 && (self.reconnects > 0 || self.accepted == expected.new)
    }

    /// Prints the first lines that were rejected or conflict.
    pub(super) fn print_lines(&self) {
        self.rejected.print("was rejected");
        self.conflict.print("conflicts with the stored event in");
    }

    pub(super) fn as_json(&self) -> String {
        json!({
            "total": self.total(),
            "accepted": self.accepted,
            "duplicate": self.duplicate,
            "conflict": self.conflict.count,
            "rejected": self.rejected.count,
            "reconnects": self.reconnects,
        })
        .to_string()
    }

    pub(super) fn as_table(&self, seconds: f64) -> String {
        let mut rows = Table::new(["result", "events"]);
        for (result, events) in [
            ("accepted", self.accepted),
            ("duplicate", self.duplicate),
            ("conflict", self.conflict.count),
            ("rejected", self.rejected.count),
            ("total", self.total()),
        ] {
            rows.add_row([result.to_owned(), events.to_string()]);
        }
        let rate = self.total() as f64 / seconds.max(f64::EPSILON);
        let mut text = format!("{rows}\n{seconds:.1} s, {rate:.0} events/s");
        if self.reconnects > 0 {
            let times = self.reconnects;
            text.push_str(&format!("\nreconnected {times} times and resent unanswered requests"));
        }
        text
    }
}
