//! Samples the counters, by GetStats and GET /stats in turn.

use event_aggregator::proto::v1 as proto;
use serde_json::Value;
use tokio::time::timeout;

use super::{Reader, is_load};
use crate::second::{
    clients,
    judge::history::{Counts, Sample},
};

pub(super) async fn run(mut reader: Reader) {
    while is_load(&reader) {
        reader.pause(40).await;
        if let Some(sample) = sample(&mut reader).await {
            reader.recorder.history().samples.push(sample);
        }
    }
}

/// Samples a random service once.
pub async fn sample(reader: &mut Reader) -> Option<Sample> {
    let by_http = reader.rng.bool();
    let address = reader.some_service().address;
    let begin = reader.recorder.now();
    let (total, topics) = match by_http {
        true => {
            let asking = clients::http(address, "GET /stats", "application/json", "");
            let answer = timeout(clients::CALL, asking).await.ok()?.ok()??;
            if answer.status != 200 {
                return None;
            }
            let stats: Value = serde_json::from_str(&answer.body).ok()?;
            let of = |topic: &Value| (topic["topic"].as_str().unwrap_or("").into(), counts(topic));
            (counts(&stats), stats["by_topic"].as_array()?.iter().map(of).collect())
        }
        false => {
            let mut client = clients::connect(address).await?;
            let request = proto::GetStatsRequest { max_topics: 1_000, ..Default::default() };
            let answer = timeout(clients::CALL, client.get_stats(request)).await.ok()?.ok()?;
            let stats = answer.into_inner();
            let total = Counts {
                received: stats.received,
                unique: stats.unique_processed,
                duplicate: stats.duplicate_dropped,
                conflicts: stats.conflicts,
            };
            let of = |topic: proto::TopicStats| {
                let counts = Counts {
                    received: topic.received,
                    unique: topic.unique_processed,
                    duplicate: topic.duplicate_dropped,
                    conflicts: topic.conflicts,
                };
                (topic.topic.into(), counts)
            };
            (total, stats.topics.into_iter().map(of).collect())
        }
    };
    Some(Sample { begin, end: reader.recorder.now(), total, topics })
}

fn counts(stats: &Value) -> Counts {
    let number = |name: &str| stats[name].as_i64().unwrap_or(-1);
    Counts {
        received: number("received"),
        unique: number("unique_processed"),
        duplicate: number("duplicate_dropped"),
        conflicts: number("conflicts"),
    }
}
