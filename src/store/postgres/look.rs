//! Queries the stored events of a batch's keys and compares them, one row at a time.

use std::{ops::Range, panic::resume_unwind, pin::Pin};

use time::OffsetDateTime;
use tokio::task::JoinError;
use tokio_postgres::{Row, RowStream, error::SqlState};
use tokio_stream::StreamExt;

use super::{Error, Judgement, Original, certain};
use crate::{event::Timestamp, store::judge::Deferred};

/// Returns the stored events of some keys, each with the key's number in the arrays, from 1.
pub(super) const LOOK: &str = "
    SELECT k.number, e.seq, e.occurred_at, e.source, e.payload::text, e.received_at
    FROM unnest($1::text[], $2::text[]) WITH ORDINALITY AS k (topic, event_id, number)
    JOIN processed_events e ON e.topic = k.topic AND e.event_id = k.event_id";

/// Compares the new events at `places` with the rows of their keys. Stored payloads may be much larger
/// than those that were sent, so only a few rows are in memory at a time.
pub(super) async fn find(
    mut rows: Pin<&mut RowStream>,
    places: &[usize],
    applied: Option<&Applied>,
    judgement: &mut Judgement<'_>,
) -> Result<(), Error> {
    let mut deferred = Deferred::default();
    while let Some(row) = rows.next().await.transpose().map_err(certain)? {
        let (number, seq, original) = original(&row).map_err(certain)?;
        if !applied.is_some_and(|applied| applied.seqs.contains(&seq)) {
            judgement.judge_or_defer(places[number as usize - 1], original, &mut deferred)?;
            if deferred.is_large() {
                compare(std::mem::take(&mut deferred), judgement).await?;
            }
        }
    }
    compare(deferred, judgement).await
}

/// Compares large payloads, away from the workers of the runtime.
async fn compare(deferred: Deferred, judgement: &mut Judgement<'_>) -> Result<(), Error> {
    if !deferred.is_empty() {
        judgement.record(on_another_thread(move || deferred.compare()).await?);
    }
    Ok(())
}

/// Skips the remaining rows, and returns whether the statement was cancelled.
pub(super) async fn is_cancelled(mut rows: Pin<&mut RowStream>) -> bool {
    while let Some(row) = rows.next().await {
        // A closed connection would return the same error forever.
        if let Err(error) = row {
            return error.code() == Some(&SqlState::QUERY_CANCELED);
        }
    }
    false
}

/// Compares payloads on a thread for blocking work, since that would block a runtime worker too
/// long. If the future is dropped, the comparison still runs to its end, without effect.
async fn on_another_thread<T: Send + 'static>(
    compare: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Error> {
    match tokio::task::spawn_blocking(compare).await.map_err(JoinError::try_into_panic) {
        Ok(compared) => Ok(compared),
        Err(Ok(panic)) => resume_unwind(panic),
        Err(Err(cancelled)) => Err(Error::Unavailable(cancelled.into())),
    }
}

/// The number of the key, the event's number in its lane, and the event.
fn original(row: &Row) -> Result<(i64, i64, Original), tokio_postgres::Error> {
    let original = Original {
        timestamp: row.try_get::<_, Option<OffsetDateTime>>(2)?.map(Into::into),
        source: row.try_get(3)?,
        payload: row.try_get(4)?,
        received_at: row.try_get::<_, OffsetDateTime>(5)?.into(),
    };
    Ok((row.try_get(0)?, row.try_get(1)?, original))
}

/// What an earlier attempt to commit the batch did.
pub(super) struct Applied {
    /// Numbers of the events that it stored.
    pub(super) seqs: Range<i64>,
    pub(super) received_at: Timestamp,
}

impl Applied {
    pub(super) fn read(row: &Row) -> Result<Self, tokio_postgres::Error> {
        let first: i64 = row.try_get(0)?;
        let events: i64 = row.try_get(1)?;
        let received_at = row.try_get::<_, OffsetDateTime>(2)?.into();
        Ok(Self { seqs: first..first + events, received_at })
    }
}
