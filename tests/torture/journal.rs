//! Writes a history as JSON lines, for the analysis of violations.

use std::{
    fs::File,
    io::{self, BufWriter, Write},
    path::Path,
};

use serde_json::{Value, json};

use crate::history::{Counters, Delivery, History, Key, Outcome};

/// Writes a history to a directory, ordered by the time at which each entry was known.
pub fn write(history: &History, path: &Path) -> io::Result<()> {
    let mut lines: Vec<(u128, Value)> = Vec::new();
    let mut add = |at: std::time::Duration, line: Value| lines.push((at.as_micros(), line));
    for attempt in &history.attempts {
        let outcome = match attempt.outcome {
            Outcome::Failed(code) => format!("FAILED {code:?}"),
            Outcome::Unknown(code) => format!("UNKNOWN {code:?}"),
            certain => format!("{certain:?}").to_uppercase(),
        };
        add(
            attempt.returned,
            json!({
                "what": "attempt", "producer": attempt.producer, "instance": attempt.instance,
                "key": key(&attempt.key), "content": hex(attempt.content),
                "invoked": attempt.invoked.as_micros(), "outcome": outcome,
            }),
        );
    }
    for (number, reader) in history.readers.iter().enumerate() {
        for event in &reader.deliveries {
            add(event.at, delivery("delivery", number, event));
        }
    }
    for (number, listing) in history.listings.iter().enumerate() {
        for event in &listing.events {
            add(event.at, delivery("listed", number, event));
        }
        add(
            listing.returned,
            json!({
                "what": "listing", "number": number, "invoked": listing.invoked.as_micros(),
                "events": listing.events.len(), "complete": listing.complete,
            }),
        );
    }
    for sample in &history.samples {
        let topics: serde_json::Map<String, Value> = sample
            .topics
            .iter()
            .map(|(topic, topic_counters)| (topic.to_string(), counters(topic_counters)))
            .collect();
        add(
            sample.returned,
            json!({
                "what": "sample", "instance": sample.instance,
                "invoked": sample.invoked.as_micros(), "totals": counters(&sample.totals),
                "topics": topics,
            }),
        );
    }
    for fault in &history.faults {
        add(fault.began, json!({ "what": "fault begins", "kind": fault.kind }));
        add(fault.ended, json!({ "what": "fault ends", "kind": fault.kind }));
    }
    lines.sort_by_key(|(at, _)| *at);

    let mut file = BufWriter::new(File::create(path)?);
    for (at, mut line) in lines {
        line["at"] = json!(at);
        writeln!(file, "{line}")?;
    }
    let settled = &history.settled;
    for row in &settled.rows {
        let line = json!({
            "what": "row", "key": key(&row.key), "content": hex(row.content), "lane": row.lane,
            "seq": row.seq,
        });
        writeln!(file, "{line}")?;
    }
    let end = json!({
        "what": "settled", "healed": settled.healed.as_micros(), "heads": settled.heads,
        "totals": counters(&settled.totals),
        "differences": settled.differences, "stuck": settled.stuck, "dirt": settled.dirt,
    });
    writeln!(file, "{end}")?;
    file.flush()
}

fn key(key: &Key) -> String {
    format!("{}/{}", key.topic, key.event_id)
}

fn hex(content: u64) -> String {
    format!("{content:016x}")
}

fn delivery(what: &str, number: usize, event: &Delivery) -> Value {
    json!({ "what": what, "by": number, "key": key(&event.key), "content": hex(event.content) })
}

fn counters(counters: &Counters) -> Value {
    json!([
        counters.received,
        counters.unique_processed,
        counters.duplicate_dropped,
        counters.conflicts
    ])
}
