//! Committing: what one lane does with a batch, on a connection of its own.
//!
//! A batch is first tried as one plain statement, which succeeds when all of it is new. If something
//! in it was there before, the statement fails as a whole, and the batch is judged: with the lane's
//! row locked nobody else can store a key of the lane, so what a look finds then is the truth until
//! the commit.
//!
//! Every effect depends on the row that the batch adds to the ledger. After a lost connection the
//! same batch is judged again: its locked look comes after whatever became of the earlier try,
//! because that one too needs the lane's row, and if it is still to come, the ledger's key will
//! refuse it.

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
    session::{ConnectError, Session, Target},
    write_error,
};
use crate::{
    event::{Outcome, Timestamp},
    limits::{CANCEL_TIMEOUT, FUTURE_TOLERANCE},
    store::identity::other_store,
};

/// The statement that stores events that are new, and counts. Gives the events the next numbers of
/// the lane, and the time, which never runs backwards within a lane and never far ahead of the database's
/// clock. Does nothing, and gives no row, if the store is another one. Public so that a benchmark can
/// drive it without the service.
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
            -- Faster than unnest in FROM, which writes each array down before it reads it.
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

/// Gives no row if the store is another one.
const LOCK: &str = "
    SELECT head FROM lanes WHERE lane = $1 AND (SELECT store_id FROM store_identity WHERE singleton) = $2
    FOR UPDATE";

const LEDGER: &str = "SELECT first_seq, events, committed_at FROM batch_ledger WHERE batch_id = $1";

/// Changes nothing, and is in the log behind everything that can be seen.
const TOUCH: &str = "UPDATE batch_ledger SET committed_at = committed_at WHERE batch_id = $1";

/// One lane's way to the database.
#[derive(Debug)]
pub(super) struct Lane {
    target: Target,
    /// The store that was opened.
    store_id: Uuid,
    session: Option<Prepared>,
    /// Whether the last batch was all new, so that the next one probably is.
    all_new: bool,
}

/// A session with the statements of a commit.
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

    /// Gives the connection up, whatever it is doing.
    pub(super) fn disconnect(&mut self) {
        self.session = None;
    }

    /// See [`super::Store::commit`].
    pub(super) async fn commit(&mut self, batch: &Batch) -> Result<Vec<Outcome>, Error> {
        let prepared = match self.session.take() {
            Some(prepared) if !prepared.session.is_closed() => prepared,
            _ => {
                // An earlier try may have got through before the connection broke.
                self.all_new = false;
                Prepared::open(&self.target, self.store_id).await?
            }
        };
        // An error, or a dropped future, leaves the session behind: the database rolls back what
        // was open in it.
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
            let session = target.connect().await?;
            let (store, lock) = (STORE, LOCK);
            #[cfg(feature = "planted-bugs")]
            let [store, lock] = [store, lock].map(unchecked);
            #[cfg(feature = "planted-bugs")]
            let (store, lock) = (&*store, &*lock);
            Ok(Self {
                store_id,
                store: session.prepare(store).await?,
                lock: session.prepare(lock).await?,
                ledger: session.prepare(LEDGER).await?,
                look: session.prepare(LOOK).await?,
                session,
            })
        };
        // Nothing was written yet, whatever went wrong.
        open.await.map_err(|error: ConnectError| Error::Unavailable(error.into()))
    }

    /// Stores the batch as if nothing in it had been there before, and says when it was received.
    /// If that was not so, nothing was done.
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

    /// Looks at what is there before storing the rest, all under the lane's lock. Says when the rest
    /// was received, or why nothing was done although the session is as it was.
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

        // Sent in one go. Each statement takes its snapshot when it runs, the later ones with the
        // lock already held.
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
            // That it can be seen means that it is on this server's disk. It is on a synchronous standby
            // as well when something that comes after it is.
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
        // COMMIT of a failed transaction is answered without an error, so its own answer counts
        // only after the statement's.
        let received_at = written.map_err(write_error)?.ok_or_else(other_store)?;
        committed.map_err(write_error)?;
        Ok(Ok(received_at))
    }

    /// Ends a look before its last row, which may be far away, and rolls back. Fails if the session must be
    /// left behind.
    async fn stop(&self, rows: Pin<&mut RowStream>) -> bool {
        let stopping = async {
            self.session.cancel().await
                // Unless it hit the look, the request to cancel may still be on its way to a later statement.
                && is_cancelled(rows).await
                && self.session.batch_execute("ROLLBACK").await.is_ok()
        };
        timeout(CANCEL_TIMEOUT, stopping).await.unwrap_or(false)
    }

    /// Nothing if the store is another one.
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

/// A statement that takes the tables of any store.
#[cfg(feature = "planted-bugs")]
fn unchecked(sql: &str) -> String {
    match crate::planted::is(crate::planted::Bug::IdentityUnchecked) {
        true => sql.replace(
            "(SELECT store_id FROM store_identity WHERE singleton) = $",
            "gen_random_uuid() <> $",
        ),
        false => sql.to_owned(),
    }
}
