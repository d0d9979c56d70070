//! `stats`: the counters.

use std::process::ExitCode;

use clap::Args;
use serde_json::json;

use super::{
    Output,
    client::{Refused, Server},
    ndjson, print, table,
};
use crate::proto::v1::{GetStatsRequest, GetStatsResponse, TopicStats};

#[derive(Debug, Args)]
pub(super) struct ShowStats {
    #[command(flatten)]
    server: Server,

    /// Only this topic
    #[arg(long)]
    topic: Option<String>,

    /// How many topics to show, most received first
    #[arg(long, default_value_t = 20, value_name = "N")]
    topics: u16,

    /// How to print [default: table on a terminal, else ndjson]
    #[arg(short, long, value_enum)]
    output: Option<Output>,
}

impl ShowStats {
    pub(super) async fn run(self) -> anyhow::Result<ExitCode> {
        let narrowed = self.topic.is_some();
        let request = GetStatsRequest {
            topic: self.topic.unwrap_or_default(),
            max_topics: self.topics.into(),
        };
        let mut client = self.server.connect().await?;
        let stats = client.get_stats(request).await.map_err(Refused)?.into_inner();
        let text = match Output::or_suitable(self.output) {
            Output::Table => as_table(&stats, narrowed),
            Output::Json | Output::Ndjson => as_json(&stats),
        };
        print(text)?;
        Ok(ExitCode::SUCCESS)
    }
}

fn as_table(stats: &GetStatsResponse, narrowed: bool) -> String {
    if stats.topics.is_empty() && narrowed {
        return "Nothing was received under this topic.".into();
    }
    if stats.topics.is_empty() {
        return "Nothing was received yet. Try: event-aggregator publish --simulate 20000".into();
    }
    let mut topics = table(["topic", "received", "unique", "duplicates", "conflicts", "last"]);
    for topic in &stats.topics {
        topics.add_row([
            topic.topic.clone(),
            topic.received.to_string(),
            topic.unique_processed.to_string(),
            topic.duplicate_dropped.to_string(),
            topic.conflicts.to_string(),
            ndjson::time(topic.last_received_at.as_ref()),
        ]);
    }
    let shown = stats.topics.len() as i64;
    let name = match stats.topics_active > shown {
        true => format!("all {} topics", stats.topics_active),
        false => "all".to_owned(),
    };
    topics.add_row([
        name,
        stats.received.to_string(),
        stats.unique_processed.to_string(),
        stats.duplicate_dropped.to_string(),
        stats.conflicts.to_string(),
        String::new(),
    ]);
    topics.to_string()
}

fn as_json(stats: &GetStatsResponse) -> String {
    let since_start = stats.since_start.unwrap_or_default();
    json!({
        "received": stats.received,
        "unique_processed": stats.unique_processed,
        "duplicate_dropped": stats.duplicate_dropped,
        "conflicts": stats.conflicts,
        "topics_active": stats.topics_active,
        "topics": stats.topics.iter().map(topic_as_json).collect::<Vec<_>>(),
        "uptime_seconds": stats.uptime.map_or(0, |uptime| uptime.seconds),
        "since_start": {
            "received": since_start.received,
            "unique_processed": since_start.unique_processed,
            "duplicate_dropped": since_start.duplicate_dropped,
            "rejected": since_start.rejected,
        },
    })
    .to_string()
}

fn topic_as_json(topic: &TopicStats) -> serde_json::Value {
    json!({
        "topic": topic.topic,
        "received": topic.received,
        "unique_processed": topic.unique_processed,
        "duplicate_dropped": topic.duplicate_dropped,
        "conflicts": topic.conflicts,
        "last_received_at": ndjson::time(topic.last_received_at.as_ref()),
    })
}
