//! `stats`: shows the counters.

use std::{process::ExitCode, time::Duration};

use clap::Args;
use serde_json::json;

use super::{
    Output, Table,
    client::{Refused, Server},
    ndjson, print, print_json,
};
use crate::proto::v1::{GetStatsRequest, GetStatsResponse, TopicStats};

mod watch;

#[derive(Debug, Args)]
#[command(after_help = "\
  event-aggregator stats
  event-aggregator stats --watch
  event-aggregator stats --watch 10s -o ndjson >> counters.ndjson

With --watch, rates are averages since the previous sample, and a service that restarts is \
reconnected to. Ctrl-C exits with 0.")]
pub(super) struct ShowStats {
    #[command(flatten)]
    server: Server,

    /// Only this topic
    #[arg(long)]
    topic: Option<String>,

    /// Maximum number of topics, most received first
    #[arg(long, default_value_t = 20, value_name = "N")]
    topics: u16,

    /// Refresh at an interval (default 2s) and show rates
    #[arg(long, value_name = "SECONDS", num_args = 0..=1, default_missing_value = "2s",
          value_parser = watch::interval)]
    watch: Option<Duration>,

    /// Output format [default: table on a terminal, else ndjson]
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
        let output = Output::or_suitable(self.output);
        if let Some(every) = self.watch {
            return watch::run(client, request, every, output).await;
        }
        let stats = client.get_stats(request).await.map_err(Refused)?.into_inner();
        match output {
            Output::Table => print(as_table(&stats, narrowed))?,
            Output::Json | Output::Ndjson => print_json(as_json(&stats))?,
        }
        Ok(ExitCode::SUCCESS)
    }
}

pub(super) fn as_table(stats: &GetStatsResponse, narrowed: bool) -> String {
    if stats.topics.is_empty() && narrowed {
        return "No events received for this topic.".into();
    }
    if stats.topics.is_empty() {
        return "No events received yet. Try: event-aggregator publish --simulate 20000".into();
    }
    let mut topics = Table::new(["topic", "received", "unique", "duplicates", "conflicts", "last"]);
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

fn as_json(stats: &GetStatsResponse) -> serde_json::Value {
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
