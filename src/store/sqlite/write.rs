//! The writer thread, which owns the only writing connection and commits one batch after another.

use std::{io, ops::Range, panic::resume_unwind, sync::Arc, thread, time::Instant};

use parking_lot::Mutex;
use rusqlite::{
    Connection, OptionalExtension, Result, ToSql, Transaction, TransactionBehavior, params,
    types::{FromSql, FromSqlError, FromSqlResult, ToSqlOutput, ValueRef},
};
use tokio::sync::{mpsc, oneshot};
use tracing::{error, warn};

use super::{
    Batch, Deferred, Error, Judgement, Original, Source, checkpoint::Checkpoints, clock::Clock,
    file::LogFiles,
};
use crate::{
    event::{NewEvent, Outcome, Timestamp},
    limits::{LEDGER_PRUNE_INTERVAL, LEDGER_RETENTION, MIN_LEDGER_ENTRIES},
    store::chain,
};

/// A handle to the writer thread.
#[derive(Debug)]
pub(super) struct Writer {
    jobs: Mutex<Option<mpsc::Sender<Job>>>,
    thread: Mutex<Option<thread::JoinHandle<()>>>,
}

enum Job {
    Commit { batch: Arc<Batch>, reply: oneshot::Sender<Result<Vec<Outcome>, Error>> },
    Reopen { done: oneshot::Sender<()> },
}

impl Writer {
    pub(super) fn spawn(source: Arc<Source>, mut connection: Connection) -> io::Result<Self> {
        let log = LogFiles::of(&connection)?;
        let checkpoints = Checkpoints::new(&source, &log, &mut connection);
        let opened = Opened { connection, log, checkpoints };
        // One job at a time: requests queue in the lane, not in the store.
        let (jobs, queue) = mpsc::channel(1);
        let thread = thread::Builder::new()
            .name("sqlite-writer".to_owned())
            .spawn(move || work(&source, opened, queue))?;
        Ok(Self { jobs: Mutex::new(Some(jobs)), thread: Mutex::new(Some(thread)) })
    }

    pub(super) async fn commit(&self, batch: Arc<Batch>) -> Result<Vec<Outcome>, Error> {
        let (reply, outcomes) = oneshot::channel();
        self.send(Job::Commit { batch, reply }).await?;
        match outcomes.await {
            Ok(committed) => committed,
            Err(_) => Err(self.gone().await),
        }
    }

    /// Closes the file and reopens it after an I/O error. Commits fail until it can be opened.
    pub(super) async fn reopen(&self) -> Result<(), Error> {
        let (done, reopened) = oneshot::channel();
        self.send(Job::Reopen { done }).await?;
        match reopened.await {
            Ok(()) => Ok(()),
            Err(_) => Err(self.gone().await),
        }
    }

    async fn send(&self, job: Job) -> Result<(), Error> {
        let jobs = self.jobs.lock().clone();
        let Some(jobs) = jobs else { return Err(stopped()) };
        match jobs.send(job).await {
            Ok(()) => Ok(()),
            Err(_) => Err(self.gone().await),
        }
    }

    /// The error if the thread does not reply. If the thread panicked, so does this: a panic must
    /// not look like a transient outage.
    async fn gone(&self) -> Error {
        let thread = self.thread.lock().take();
        if let Some(thread) = thread
            && let Ok(Err(panic)) = tokio::task::spawn_blocking(|| thread.join()).await
        {
            resume_unwind(panic);
        }
        stopped()
    }

    /// Lets the thread finish its job and waits for it.
    pub(super) async fn close(&self) {
        self.jobs.lock().take();
        let thread = self.thread.lock().take();
        if let Some(thread) = thread {
            let joined = tokio::task::spawn_blocking(|| thread.join()).await;
            if !matches!(joined, Ok(Ok(()))) {
                error!("the SQLite writer thread panicked");
            }
        }
    }
}

/// The writing connection, and what belongs to it.
struct Opened {
    connection: Connection,
    log: LogFiles,
    checkpoints: Checkpoints,
}

fn stopped() -> Error {
    Error::Unavailable("the SQLite writer thread has stopped".into())
}

fn work(source: &Arc<Source>, opened: Opened, mut queue: mpsc::Receiver<Job>) {
    let mut opened = Some(opened);
    let mut clock = Clock::new(Timestamp::now(), Instant::now());
    let mut pruned: Option<Instant> = None;
    while let Some(job) = queue.blocking_recv() {
        // The receiver is gone if the lane task ended; the job is done anyway.
        match (job, &mut opened) {
            (Job::Commit { batch, reply }, Some(Opened { connection, log, checkpoints })) => {
                let received_at = clock.bounded(batch.received_at, Instant::now());
                let committed = commit_in_place(source, log, connection, &batch, received_at);
                let is_wrong = matches!(committed, Err(Error::WrongStore(_)));
                let _ = reply.send(committed);
                if is_wrong {
                    continue;
                }
                if pruned.is_none_or(|at| at.elapsed() > LEDGER_PRUNE_INTERVAL) {
                    if let Err(error) = prune(connection) {
                        warn!(%error, "failed to prune the batch ledger; will retry");
                    }
                    pruned = Some(Instant::now());
                }
                checkpoints.step(connection);
            }
            (Job::Commit { reply, .. }, None) => {
                let closed = "the SQLite file is closed after an I/O error";
                let unknown = || Err(Error::Unknown(closed.into()));
                let _ = reply.send(source.check().and_then(|()| unknown()));
            }
            (Job::Reopen { done }, opened) => {
                close(opened.take());
                *opened = open(source)
                    .inspect_err(|error| {
                        warn!(error = chain(error), "failed to reopen the SQLite file");
                    })
                    .ok();
                let _ = done.send(());
            }
        }
    }
    // Without readers, closing the connection also removes the WAL.
    close(opened);
}

/// Reopens the file, if it is the same one.
fn open(source: &Arc<Source>) -> Result<Opened, Error> {
    source.check()?;
    let mut connection = super::connect(source.file.path())?;
    source.check_store(&connection)?;
    let log = LogFiles::of(&connection).map_err(|error| Error::Unavailable(error.into()))?;
    let checkpoints = Checkpoints::new(source, &log, &mut connection);
    Ok(Opened { connection, log, checkpoints })
}

/// Closes the connection of the writer, and before it that of a checkpoint.
fn close(opened: Option<Opened>) {
    let Some(Opened { connection, mut checkpoints, .. }) = opened else { return };
    checkpoints.wait();
    if let Err((_, error)) = connection.close() {
        warn!(%error, "failed to close the SQLite file cleanly");
    }
}

/// Commits a batch, and confirms it only if the database and WAL files still have their names:
/// files without names are lost with the process. If they come back, the ledger has the batch.
fn commit_in_place(
    source: &Source,
    log: &LogFiles,
    connection: &mut Connection,
    batch: &Batch,
    received_at: Timestamp,
) -> Result<Vec<Outcome>, Error> {
    source.check()?;
    let outcomes = commit(connection, batch, received_at)?;
    source.check()?;
    if log.are_there() {
        return Ok(outcomes);
    }
    // The connection still has its files, without names. The WAL is moved into the database file,
    // which is then reopened with new ones.
    let removed = "the WAL files of the SQLite database were removed";
    let checkpoint = "PRAGMA wal_checkpoint(FULL)";
    match connection.query_row(checkpoint, [], |row| row.get(0))? {
        false => Err(Error::Unknown(removed.into())),
        true => {
            Err(Error::Unavailable(format!("{removed}, and readers block the checkpoint").into()))
        }
    }
}

fn commit(
    connection: &mut Connection,
    batch: &Batch,
    received_at: Timestamp,
) -> Result<Vec<Outcome>, Error> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let mut judgement = Judgement::new(batch);
    let Some((seqs, received_at)) = applied(&transaction, batch)? else {
        let received_at = store(&transaction, batch, received_at, &mut judgement)?;
        transaction.commit()?;
        return Ok(judgement.into_outcomes(received_at));
    };
    // Events stored by an earlier attempt, whose reply was lost, count as new.
    let places: Vec<usize> = judgement.new_places().collect();
    let mut deferred = Deferred::default();
    for place in places {
        if let Some((seq, original)) = original(&transaction, judgement.event(place))?
            && !seqs.contains(&seq)
        {
            judge(&mut judgement, place, original, &mut deferred)?;
        }
    }
    judgement.record(deferred.compare());
    Ok(judgement.into_outcomes(received_at))
}

/// The numbers that an earlier attempt to commit this batch assigned, and its time of receipt.
fn applied(
    transaction: &Transaction<'_>,
    batch: &Batch,
) -> Result<Option<(Range<i64>, Timestamp)>> {
    transaction
        .prepare_cached(
            "SELECT first_seq, events, committed_at FROM batch_ledger WHERE batch_id = ?1",
        )?
        .query_row([batch.id], |row| {
            let first: i64 = row.get(0)?;
            Ok((first..first + row.get::<_, i64>(1)?, row.get::<_, Micros>(2)?.0))
        })
        .optional()
}

/// Stores the new events, counts all, and returns the time of receipt, which is monotonic.
fn store(
    transaction: &Transaction<'_>,
    batch: &Batch,
    received_at: Timestamp,
    judgement: &mut Judgement<'_>,
) -> Result<Timestamp, Error> {
    let (head, latest) = transaction
        .prepare_cached("SELECT head, last_received_at FROM lanes WHERE lane = ?1")?
        .query_row([batch.lane], |row| Ok((row.get::<_, i64>(0)?, row.get::<_, Micros>(1)?.0)))?;
    let received_at = Micros(received_at.max(latest));

    let mut seq = head;
    let mut deferred = Deferred::default();
    let mut insert = transaction.prepare_cached(
        "INSERT INTO processed_events
             (seq, topic, event_id, occurred_at, source, payload, received_at)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)
         ON CONFLICT (topic, event_id) DO NOTHING",
    )?;
    for place in judgement.new_places_by_arrival() {
        let event = judgement.event(place);
        let inserted = insert.execute(params![
            seq + 1,
            &*event.key.topic,
            &*event.key.event_id,
            event.timestamp.map(Micros),
            &*event.source,
            event.payload.as_str(),
            received_at,
        ])?;
        if inserted == 1 {
            seq += 1;
        } else if let Some((_, original)) = original(transaction, event)? {
            judge(judgement, place, original, &mut deferred)?;
        }
    }
    judgement.record(deferred.compare());

    transaction
        .prepare_cached("UPDATE lanes SET head = ?2, last_received_at = ?3 WHERE lane = ?1")?
        .execute(params![batch.lane, seq, received_at])?;
    transaction
        .prepare_cached(
            "INSERT INTO batch_ledger (batch_id, lane, first_seq, events, committed_at)
             VALUES (?1, ?2, ?3, ?4, ?5)",
        )?
        .execute(params![batch.id, batch.lane, head + 1, seq - head, received_at])?;
    count(transaction, judgement, received_at)?;
    Ok(received_at.0)
}

/// Compares an event with the one stored under its key, now or later.
fn judge(
    judgement: &mut Judgement<'_>,
    place: usize,
    original: Original,
    deferred: &mut Deferred,
) -> Result<(), Error> {
    judgement.judge_or_defer(place, original, deferred)?;
    if deferred.is_large() {
        judgement.record(std::mem::take(deferred).compare());
    }
    Ok(())
}

/// Adds the batch to the counters.
fn count(connection: &Connection, judgement: &Judgement<'_>, received_at: Micros) -> Result<()> {
    let mut count = connection.prepare_cached(
        "INSERT INTO audit_stats AS s (topic, received, unique_processed, duplicate_dropped,
                                       conflicts, last_received_at)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6)
         ON CONFLICT (topic) DO UPDATE SET
             received = s.received + excluded.received,
             unique_processed = s.unique_processed + excluded.unique_processed,
             duplicate_dropped = s.duplicate_dropped + excluded.duplicate_dropped,
             conflicts = s.conflicts + excluded.conflicts,
             last_received_at = max(s.last_received_at, excluded.last_received_at)",
    )?;
    for (topic, counters) in judgement.counters() {
        count.execute(params![
            topic,
            counters.received,
            counters.unique_processed,
            counters.duplicate_dropped,
            counters.conflicts,
            received_at,
        ])?;
    }
    Ok(())
}

/// The stored event with the event's key.
fn original(transaction: &Transaction<'_>, event: &NewEvent) -> Result<Option<(i64, Original)>> {
    transaction
        .prepare_cached(
            "SELECT seq, occurred_at, source, payload, received_at
             FROM processed_events WHERE topic = ?1 AND event_id = ?2",
        )?
        .query_row([&*event.key.topic, &*event.key.event_id], |row| {
            let original = Original {
                timestamp: row.get::<_, Option<Micros>>(1)?.map(|at| at.0),
                source: row.get(2)?,
                payload: row.get(3)?,
                received_at: row.get::<_, Micros>(4)?.0,
            };
            Ok((row.get(0)?, original))
        })
        .optional()
}

/// Deletes old ledger entries, but keeps the last ones, because the clock may jump. Their order is
/// that of the numbers; batches without new events have none.
fn prune(connection: &Connection) -> Result<()> {
    connection
        .prepare_cached(
            "DELETE FROM batch_ledger WHERE entered_at < (unixepoch() - ?1) * 1000000
             AND (first_seq, committed_at, batch_id) < (
                 SELECT first_seq, committed_at, batch_id FROM batch_ledger
                 ORDER BY first_seq DESC, committed_at DESC, batch_id DESC LIMIT 1 OFFSET ?2 - 1
             )",
        )?
        .execute([LEDGER_RETENTION.as_secs() as i64, MIN_LEDGER_ENTRIES])?;
    Ok(())
}

/// A time as it is stored: microseconds since 1970.
#[derive(Clone, Copy)]
pub(super) struct Micros(pub(super) Timestamp);

impl ToSql for Micros {
    fn to_sql(&self) -> Result<ToSqlOutput<'_>> {
        Ok(self.0.as_micros().into())
    }
}

impl FromSql for Micros {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        let micros = value.as_i64()?;
        Timestamp::from_micros(micros).map(Self).ok_or(FromSqlError::OutOfRange(micros))
    }
}
