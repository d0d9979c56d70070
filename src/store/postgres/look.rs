//! Looking for the originals of a batch, and judging its events by them, one row after the other.

use std::{ops::Range, panic::resume_unwind, pin::Pin};

use time::OffsetDateTime;
use tokio::task::JoinError;
use tokio_postgres::{Row, RowStream, error::SqlState};
use tokio_stream::StreamExt;

use super::{Error, Judgement, Original, certain};
use crate::{event::Timestamp, limits::INLINE_COMPARED_BYTES};

/// Finds what is stored under some keys, with the number of each in the arrays, from 1.
pub(super) const LOOK: &str = "
    SELECT k.number, e.seq, e.occurred_at, e.source, e.payload::text, e.received_at
    FROM unnest($1::text[], $2::text[]) WITH ORDINALITY AS k (topic, event_id, number)
    JOIN processed_events e ON e.topic = k.topic AND e.event_id = k.event_id";

/// Judges the new events at `places` by the rows that were found for them, one row in memory at a
/// time: originals may be far larger than what was sent.
pub(super) async fn find(
    mut rows: Pin<&mut RowStream>,
    places: &[usize],
    applied: Option<&Applied>,
    judgement: &mut Judgement<'_>,
) -> Result<(), Error> {
    while let Some(row) = rows.next().await.transpose().map_err(certain)? {
        let (number, seq, original) = original(&row).map_err(certain)?;
        if !applied.is_some_and(|applied| applied.seqs.contains(&seq)) {
            let place = places[number as usize - 1];
            if judgement.compared_bytes(place, &original) <= INLINE_COMPARED_BYTES {
                judgement.judge(place, &original)?;
                continue;
            }
            let repeated = judgement.repeated(place, original)?;
            judgement.found(on_another_thread(move || repeated.verdicts()).await?);
        }
    }
    Ok(())
}

/// Passes the rows that are left, and says whether the statement ended because it was cancelled.
pub(super) async fn is_cancelled(mut rows: Pin<&mut RowStream>) -> bool {
    while let Some(row) = rows.next().await {
        // After an error nothing more comes, or the same error for ever if the connection is gone.
        if let Err(error) = row {
            return error.code() == Some(&SqlState::QUERY_CANCELED);
        }
    }
    false
}

/// Compares payloads that would keep a worker of the runtime for too long. Whoever drops this leaves a
/// thread behind that compares to its end and changes nothing.
async fn on_another_thread<T: Send + 'static>(
    compare: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Error> {
    match tokio::task::spawn_blocking(compare).await.map_err(JoinError::try_into_panic) {
        Ok(compared) => Ok(compared),
        Err(Ok(panic)) => resume_unwind(panic),
        Err(Err(cancelled)) => Err(Error::Unavailable(cancelled.into())),
    }
}

/// What was found for the key with a number, and its own number in the lane.
fn original(row: &Row) -> Result<(i64, i64, Original), tokio_postgres::Error> {
    let original = Original {
        timestamp: row.try_get::<_, Option<OffsetDateTime>>(2)?.map(Into::into),
        source: row.try_get(3)?,
        payload: row.try_get(4)?,
        received_at: row.try_get::<_, OffsetDateTime>(5)?.into(),
    };
    Ok((row.try_get(0)?, row.try_get(1)?, original))
}

/// What an earlier try of a batch did.
pub(super) struct Applied {
    /// The numbers of the events that it stored.
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
