//! Commits of one lane, on a connection of its own.
//!
//! A batch is first tried as a single statement, which succeeds if all its events are new. If one
//! is not, the statement fails as a whole, and the batch is deduplicated under the lock of the
//! lane's row. No other session can store a key of the lane then, so the originals that a query
//! finds remain correct until the commit.
//!
//! All effects depend on the row that the batch adds to the ledger. After a lost connection the
//! same batch is deduplicated again. Its locked query runs after the earlier attempt, which needs
//! the lane's row too; and if that attempt is still to come, the unique key of the ledger rejects
//! it.

use std::pin::{Pin, pin};

use postgres_types::ToSql;
use time::OffsetDateTime;
use tokio::time::timeout;
use tokio_postgres::{RowStream, Statement, error::SqlState};
use uuid::Uuid;

use super::{
    Batch, Error, Judgement, certain,
    columns::{Rows, Tallies},
    look::{Applied, LOOK, find, is_cancelled},
    session::{ConnectError, Session},
    target::Target,
    write_error,
};
use crate::{
    event::{Outcome, Timestamp},
    limits::{CANCEL_TIMEOUT, FUTURE_TOLERANCE},
    store::identity::other_store,
};

/// Stores new events and counts them. Assigns the next numbers of the lane and the time of receipt,
/// which is monotonic within the lane and never far ahead of the database's clock. Does nothing and
/// returns no row if the store id differs. Public for a benchmark without the service.
pub const STORE: &str = "
    WITH lane AS (
        UPDATE lanes SET head = head + $3,
            last_received_at =
                greatest(last_received_at, least($4, now() + make_interval(secs => $16)))
        WHERE lane = $2 AND (SELECT store_id FROM store_identity WHERE singleton) = $15
        RETURNING head - $3 AS base, last_received_at
    ), fence AS (
        INSERT INTO batch_ledger (batch_id, lane, first_seq, events, committed_at)
        SELECT $1, $2, lane.base + 1, $3, lane.last_received_at FROM lane
        RETURNING first_seq, committed_at AS received_at
    ), stored AS (
        INSERT INTO processed_events
            (topic, event_id, lane, seq, occurred_at, source, payload, received_at)
        SELECT e.topic, e.event_id, $2, fence.first_seq + e.number, e.occurred_at, e.source,
               e.payload, fence.received_at
        FROM fence, (
            -- Faster than unnest in FROM, which materializes each array first.
            SELECT unnest($5::text[]) AS topic, unnest($6::text[]) AS event_id,
                   unnest($7::bigint[]) AS number, unnest($8::timestamptz[]) AS occurred_at,
                   unnest($9::text[]) AS source, unnest($10::json[]) AS payload
        ) AS e
    ), counted AS (
        INSERT INTO audit_stats AS s (topic, received, unique_processed, duplicate_dropped,
                                      conflicts, last_received_at)
        SELECT c.topic, c.received, c.unique_processed, c.received - c.unique_processed,
               c.conflicts, fence.received_at
        FROM fence, unnest($11::text[], $12::bigint[], $13::bigint[], $14::bigint[])
             AS c (topic, received, unique_processed, conflicts)
        ON CONFLICT (topic) DO UPDATE SET
            received = s.received + excluded.received,
            unique_processed = s.unique_processed + excluded.unique_processed,
            duplicate_dropped = s.duplicate_dropped + excluded.duplicate_dropped,
            conflicts = s.conflicts + excluded.conflicts,
            last_received_at = greatest(s.last_received_at, excluded.last_received_at)
    )
    SELECT received_at FROM fence";

/// Returns no row if the store id differs.
const LOCK: &str = "
    SELECT head FROM lanes WHERE lane = $1 AND (SELECT store_id FROM store_identity WHERE singleton) = $2
    FOR UPDATE";

const LEDGER: &str = "SELECT first_seq, events, committed_at FROM batch_ledger WHERE batch_id = $1";

/// Changes nothing, but its WAL record follows everything that is visible.
const TOUCH: &str = "UPDATE batch_ledger SET committed_at = committed_at WHERE batch_id = $1";

/// One lane's connection to the database.
#[derive(Debug)]
pub(super) struct Lane {
    target: Target,
    /// Id of the opened store.
    store_id: Uuid,
    session: Option<Prepared>,
    /// Whether all events of the last batch were new, so that those of the next one probably are.
    all_new: bool,
}

/// A session with prepared statements.
#[derive(Debug)]
struct Prepared {
    session: Session,
    store_id: Uuid,
    store: Statement,
    lock: Statement,
    ledger: Statement,
    look: Statement,
}

impl Lane {
    pub(super) fn new(target: Target, store_id: Uuid) -> Self {
        Self { target, store_id, session: None, all_new: true }
    }

    /// Closes the connection, even if a statement is running.
    pub(super) fn disconnect(&mut self) {
        self.session = None;
    }

    /// See [`super::Store::commit`].
    pub(super) async fn commit(&mut self, batch: &Batch) -> Result<Vec<Outcome>, Error> {
        let prepared = match self.session.take() {
            Some(prepared) if !prepared.session.is_closed() => prepared,
            _ => {
                // An earlier attempt may have committed before the connection was lost.
                self.all_new = false;
                Prepared::open(&self.target, self.store_id).await?
            }
        };
        // An error or a cancellation drops the session, and the database rolls back its
        // transaction.
        let mut judgement = Judgement::new(batch);
        let stored = match self.all_new {
            true => prepared.store_all(batch, &judgement).await?,
            false => None,
        };
        let received_at = match stored {
            Some(received_at) => received_at,
            None => match prepared.store_judged(batch, &mut judgement).await? {
                Ok(received_at) => received_at,
                Err(error) => {
                    self.session = Some(prepared);
                    return Err(error);
                }
            },
        };
        self.all_new = judgement.new_events().count() == batch.events.len();
        self.session = Some(prepared);
        Ok(judgement.into_outcomes(received_at))
    }
}

impl Prepared {
    async fn open(target: &Target, store_id: Uuid) -> Result<Self, Error> {
        let open = async {
            let session = Session::open(target).await?;
            Ok(Self {
                store_id,
                store: session.prepare(STORE).await?,
                lock: session.prepare(LOCK).await?,
                ledger: session.prepare(LEDGER).await?,
                look: session.prepare(LOOK).await?,
                session,
            })
        };
        // Nothing was written yet, whatever the error is.
        open.await.map_err(|error: ConnectError| error.into())
    }

    /// Stores the batch on the assumption that all its events are new, and returns the time of
    /// receipt. Returns `None`, with nothing done, if one is not.
    async fn store_all(
        &self,
        batch: &Batch,
        judgement: &Judgement<'_>,
    ) -> Result<Option<Timestamp>, Error> {
        match self.store(batch, judgement).await {
            Ok(Some(received_at)) => Ok(Some(received_at)),
            Ok(None) => Err(other_store()),
            Err(error) if error.code() == Some(&SqlState::UNIQUE_VIOLATION) => Ok(None),
            Err(error) => Err(write_error(error)),
        }
    }

    /// Queries the originals of the batch and stores the events without one, under the lane's lock.
    /// Returns the time of receipt, or the error if nothing was done and the session is still
    /// usable.
    async fn store_judged(
        &self,
        batch: &Batch,
        judgement: &mut Judgement<'_>,
    ) -> Result<Result<Timestamp, Error>, Error> {
        let places: Vec<usize> = judgement.new_places().collect();
        let lane = i16::try_from(batch.lane).map_err(|error| Error::Refused(error.into()))?;
        let (topics, ids): (Vec<&str>, Vec<&str>) = places
            .iter()
            .map(|&place| &judgement.event(place).key)
            .map(|key| (&*key.topic, &*key.event_id))
            .unzip();

        // Pipelined. Each statement takes its snapshot when it runs, the later ones with the lock
        // held.
        let lane: [&(dyn ToSql + Sync); 2] = [&lane, &self.store_id];
        let batch_id: [&(dyn ToSql + Sync); 1] = [&batch.id];
        let keys: [&(dyn ToSql + Sync); 2] = [&topics, &ids];
        let (begun, locked, ledger, look) = tokio::join! {
            biased;
            self.session.batch_execute("BEGIN"),
            self.session.query_opt(&self.lock, &lane),
            self.session.query_opt(&self.ledger, &batch_id),
            self.session.query_raw(&self.look, keys),
        };
        begun.map_err(certain)?;
        locked.map_err(certain)?.ok_or_else(other_store)?;
        let applied = ledger.and_then(|row| row.as_ref().map(Applied::read).transpose());
        let applied = applied.map_err(certain)?;
        let mut stored = pin!(look.map_err(certain)?);
        match find(stored.as_mut(), &places, applied.as_ref(), judgement).await {
            Err(error @ Error::TooMuch { .. }) if self.stop(stored).await => return Ok(Err(error)),
            found => found?,
        }

        if let Some(applied) = applied {
            // A visible row is on the disk of this server. It is also on a synchronous standby once
            // a later WAL record is.
            if self.session.execute(TOUCH, &batch_id).await.map_err(write_error)? != 1 {
                return Err(Error::Unavailable("the ledger entry of the batch is missing".into()));
            }
            self.session.batch_execute("COMMIT").await.map_err(write_error)?;
            return Ok(Ok(applied.received_at));
        }
        let (written, committed) = tokio::join! {
            biased;
            self.store(batch, judgement),
            self.session.batch_execute("COMMIT"),
        };
        // COMMIT of a failed transaction returns no error, so the statement's result is checked
        // first.
        let received_at = written.map_err(write_error)?.ok_or_else(other_store)?;
        committed.map_err(write_error)?;
        Ok(Ok(received_at))
    }

    /// Cancels a query for originals, which may have many rows left, and rolls back. Returns false
    /// if the session must be closed.
    async fn stop(&self, rows: Pin<&mut RowStream>) -> bool {
        let stopping = async {
            self.session.cancel().await
                // Unless it ended the query, the cancel request may still hit a later statement.
                && is_cancelled(rows).await
                && self.session.batch_execute("ROLLBACK").await.is_ok()
        };
        timeout(CANCEL_TIMEOUT, stopping).await.unwrap_or(false)
    }

    /// Returns `None` if the store id differs.
    async fn store(
        &self,
        batch: &Batch,
        judgement: &Judgement<'_>,
    ) -> Result<Option<Timestamp>, tokio_postgres::Error> {
        let rows = Rows::of(batch, judgement);
        let tallies = Tallies::of(judgement.counters());
        let row = self
            .session
            .query_opt(
                &self.store,
                &[
                    &batch.id,
                    &(batch.lane as i16),
                    &(rows.len() as i64),
                    &OffsetDateTime::from(batch.received_at),
                    &rows.topics(),
                    &rows.event_ids(),
                    &rows.numbers(),
                    &rows.timestamps(),
                    &rows.sources(),
                    &rows.payloads(),
                    &tallies.topics,
                    &tallies.received,
                    &tallies.unique_processed,
                    &tallies.conflicts,
                    &self.store_id,
                    &FUTURE_TOLERANCE.as_secs_f64(),
                ],
            )
            .await?;
        row.map(|row| row.try_get::<_, OffsetDateTime>(0).map(Into::into)).transpose()
    }
}
