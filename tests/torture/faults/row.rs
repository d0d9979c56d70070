//! Faults of stored data: an unreadable row.

use std::time::Duration;

use event_aggregator::proto::v1::{PublishRequest, PublishStatus};
use fastrand::Rng;
use tokio::time::{Instant, sleep, timeout};
use tonic::Code;

use super::database::heal;
use crate::{
    cluster::{Client, Instance},
    database::Database,
    history::{Attempt, Outcome},
    outcome,
    round::Round,
    secrets,
    workload::{self, Item},
};

/// Maximum time of an event in the same batch as a duplicate of the damaged row: much longer than
/// other faults, and shorter than the retries of a whole batch.
const BESIDE: Duration = Duration::from_secs(30);

/// Timeout of one call.
const CALL: Duration = Duration::from_secs(35);

/// Damages the row of a stored event, sends that event again in a batch with a new one, which must
/// be stored nevertheless, and repairs the row.
pub(super) async fn damage(round: &Round, to: &Instance, rng: &mut Rng) -> Result<(), String> {
    let number = rng.u64(..);
    let topic = workload::topic(rng);
    let item = |name: &str| {
        let payload = format!("{{\"canary\":\"{}\",\"n\":{number}}}", secrets::PAYLOAD);
        Item::new(&topic, &format!("{name}-{number}"), "row", payload)
    };
    let (damaged, beside) = (item("damaged"), item("beside"));
    store(round, to, &damaged).await?;

    let id = &damaged.key.event_id;
    change(&round.database, id, "'infinity'", &i64::MAX.to_string()).await?;
    let began = Instant::now();
    let mut is_stored = false;
    while !is_stored && began.elapsed() < BESIDE {
        let outcomes = publish(round, to, &[&damaged, &beside]).await;
        is_stored = outcome::is_final(outcomes[1], true);
    }
    change(&round.database, id, "NULL", "NULL").await?;
    if !is_stored {
        round
            .recorder
            .stuck(format!("an event beside a damaged row was not stored for {BESIDE:?}"));
    }
    store(round, to, &damaged).await
}

/// Sends an event until its outcome is known.
async fn store(round: &Round, to: &Instance, item: &Item) -> Result<(), String> {
    let began = Instant::now();
    while began.elapsed() < BESIDE {
        if outcome::is_final(publish(round, to, &[item]).await[0], true) {
            return Ok(());
        }
        sleep(Duration::from_millis(50)).await;
    }
    Err("the event for it was not stored".to_owned())
}

/// Sets the producer's timestamp of an event directly to one that no service stores and that
/// differs per database.
async fn change(
    database: &Database,
    event_id: &str,
    postgres: &str,
    sqlite: &str,
) -> Result<(), String> {
    let set = |time| {
        format!("UPDATE processed_events SET occurred_at = {time} WHERE event_id = '{event_id}'")
    };
    match database {
        Database::Postgres { .. } => heal(database, &set(postgres)).await,
        Database::Sqlite(path) => {
            let (path, sql) = (path.clone(), set(sqlite));
            let changing = tokio::task::spawn_blocking(move || {
                let connection = rusqlite::Connection::open(path)?;
                connection.busy_timeout(Duration::from_secs(10))?;
                connection.execute_batch(&sql)
            });
            changing.await.expect("no panic").map_err(|error| error.to_string())
        }
    }
}

/// Sends events in one call, and records their outcomes.
async fn publish(round: &Round, to: &Instance, items: &[&Item]) -> Vec<Outcome> {
    let invoked = round.recorder.now();
    let mut client = Client::new(round.cluster.channel(to.number));
    let events = items.iter().map(|item| item.event()).collect();
    let request = PublishRequest { events, allow_partial: true };
    let outcomes = match timeout(CALL, client.publish(request)).await {
        Ok(Ok(response)) => response
            .into_inner()
            .results
            .iter()
            .map(|result| match result.status() {
                // The duplicate of the damaged row, which is neither stored nor counted.
                PublishStatus::Rejected => Outcome::Failed(Code::Internal),
                _ => outcome::of_result(result),
            })
            .collect(),
        Ok(Err(status)) => vec![outcome::of_status(&status); items.len()],
        Err(_) => vec![Outcome::Unknown(Code::DeadlineExceeded); items.len()],
    };
    let returned = round.recorder.now();
    round.recorder.attempts(items.iter().zip(&outcomes).map(|(item, outcome)| Attempt {
        producer: 0,
        instance: to.number,
        key: item.key.clone(),
        content: item.content,
        invoked,
        returned,
        outcome: *outcome,
    }));
    outcomes
}
