//! Verifies the counters, in one snapshot of a read-only transaction.

use tokio_postgres::{Client, IsolationLevel, Row, Transaction};
use tokio_stream::StreamExt;

use super::{
    OpenError, open,
    reply::redacted,
    schema::{self, Schemas},
    session::Session,
    target::Target,
};
use crate::{
    limits::MAX_DIFFERENCES,
    store::{
        lane_of,
        verify::{Difference, Failed, Report, check_schema},
    },
};

/// Session options. Reading a large table may take long.
const OPTIONS: &str = "-c statement_timeout=0 -c default_transaction_read_only=on";

/// See [`Report::of`]. A sum of bigint is numeric; the result fits bigint.
const SUMS: &str = "
    SELECT coalesce(sum(received), 0)::bigint, coalesce(sum(unique_processed), 0)::bigint,
           coalesce(sum(duplicate_dropped), 0)::bigint, coalesce(sum(conflicts), 0)::bigint,
           count(*), (SELECT count(*) FROM processed_events)
    FROM audit_stats";

// Reads the events once; everything else is derived from these sums.
const DIFFERENCES: &str = "
    WITH sums AS MATERIALIZED (
        SELECT topic, lane, count(*) AS events, min(seq) AS first, max(seq) AS last
        FROM processed_events GROUP BY topic, lane
    ),
    stored AS (
        SELECT topic, sum(events)::bigint AS events, min(lane) AS lane, max(lane) AS other_lane
        FROM sums GROUP BY topic
    ),
    numbered AS (
        SELECT lane, sum(events)::bigint AS events, min(first) AS first, max(last) AS last
        FROM sums GROUP BY lane
    ),
    differences (kind, subject, recorded, actual) AS (
        SELECT 'unique_processed', coalesce(a.topic, s.topic), a.unique_processed, s.events
        FROM audit_stats a FULL JOIN stored s ON s.topic = a.topic
        WHERE a.unique_processed IS DISTINCT FROM s.events
        UNION ALL
        SELECT 'received', topic, received, unique_processed + duplicate_dropped
        FROM audit_stats WHERE received <> unique_processed + duplicate_dropped
        UNION ALL
        SELECT 'conflicts', topic, conflicts, duplicate_dropped
        FROM audit_stats WHERE conflicts > duplicate_dropped
        UNION ALL
        SELECT 'lane', topic, other_lane, lane FROM stored WHERE other_lane <> lane
        UNION ALL
        SELECT 'head', coalesce(l.lane, n.lane)::text, l.head, coalesce(n.last, 0)
        FROM lanes l FULL JOIN numbered n ON n.lane = l.lane
        WHERE l.head IS DISTINCT FROM coalesce(n.last, 0)
        UNION ALL
        SELECT 'seq', lane::text, last - first + 1, events FROM numbered
        WHERE last - first + 1 <> events
        UNION ALL
        SELECT 'first seq', lane::text, first, 1 FROM numbered WHERE first <> 1
    )
    SELECT kind, subject, recorded, actual, count(*) OVER () FROM differences
    ORDER BY kind, subject LIMIT $1";

// The lane of a topic, from one of its events: DIFFERENCES checks that all are in one lane.
const LANES: &str = "
    SELECT a.topic, e.lane, (SELECT count(*) FROM lanes)
    FROM audit_stats a CROSS JOIN LATERAL (
        SELECT lane FROM processed_events WHERE topic = a.topic LIMIT 1
    ) e";

/// Compares the counters in the database at `url` with its rows. Read-only; services may be writing
/// to the database.
pub async fn verify(url: &str) -> Result<Report, Failed> {
    let target = Target::of(url)?.with_options(OPTIONS).for_reading();
    let database = target.describe();
    let mut session = existing(&target).await?;
    let compared = compare(session.as_mut(), &database).await;
    compared.map_err(|error| unreadable(&database, &error))
}

/// A session on a database with exactly the schema of this program, pinned to its tables.
pub(super) async fn existing(target: &Target) -> Result<Session, Failed> {
    let database = target.describe();
    let session = Session::open(target).await.map_err(|error| OpenError::Unreachable {
        database: database.clone(),
        reason: error.advice(),
    })?;
    open::check_server(&session, &database).await?;
    let schemas = Schemas::look(&session, &database).await?;
    let found = match schemas.existing(&database)? {
        Some(schema) => {
            let pinned = schema::pin(&session, schema).await;
            pinned.map_err(|error| unreadable(&database, &error))?;
            let version = schema_version(&session).await;
            version.map_err(|error| unreadable(&database, &error))?
        }
        None => None,
    };
    check_schema(found, &open::migrations(), &database)?;
    Ok(session)
}

fn unreadable(database: &str, error: &tokio_postgres::Error) -> Failed {
    Failed::Read { database: database.to_owned(), reason: redacted(error) }
}

async fn schema_version(client: &Client) -> Result<Option<i64>, tokio_postgres::Error> {
    let has_history = "SELECT to_regclass('refinery_schema_history') IS NOT NULL";
    if !client.query_one(has_history, &[]).await?.try_get::<_, bool>(0)? {
        return Ok(None);
    }
    let version = "SELECT max(version)::bigint FROM refinery_schema_history";
    client.query_one(version, &[]).await?.try_get(0)
}

async fn compare(client: &mut Client, database: &str) -> Result<Report, tokio_postgres::Error> {
    let snapshot = client
        .build_transaction()
        .isolation_level(IsolationLevel::RepeatableRead)
        .read_only(true)
        .start()
        .await?;
    let row = snapshot.query_one(SUMS, &[]).await?;
    let mut sums = [0; 6];
    for (column, sum) in sums.iter_mut().enumerate() {
        *sum = row.try_get(column)?;
    }
    let mut report = Report::of(database, sums);
    for row in snapshot.query(DIFFERENCES, &[&(MAX_DIFFERENCES as i64)]).await? {
        report.difference_count = row.try_get(4)?;
        report.differences.push(difference(&row)?);
    }
    report.difference_count += misplaced(&snapshot, &mut report.differences).await?;
    snapshot.commit().await?;
    Ok(report)
}

/// Adds the topics that are not in the lane that [`lane_of`] returns, up to the limit of
/// differences. Returns how many there are.
async fn misplaced(
    snapshot: &Transaction<'_>,
    differences: &mut Vec<Difference>,
) -> Result<i64, tokio_postgres::Error> {
    let mut count = 0;
    let none: [&str; 0] = [];
    let mut topics = std::pin::pin!(snapshot.query_raw(LANES, none).await?);
    while let Some(row) = topics.next().await.transpose()? {
        let (topic, lane): (&str, i16) = (row.try_get(0)?, row.try_get(1)?);
        let lanes = u16::try_from(row.try_get::<_, i64>(2)?).unwrap_or(u16::MAX).max(1);
        let right = lane_of(topic, lanes);
        if i32::from(lane) == i32::from(right) {
            continue;
        }
        count += 1;
        if differences.len() < MAX_DIFFERENCES {
            differences.push(Difference {
                check: "lane".to_owned(),
                of: topic.to_owned(),
                recorded: Some(lane.into()),
                actual: Some(right.into()),
            });
        }
    }
    Ok(count)
}

fn difference(row: &Row) -> Result<Difference, tokio_postgres::Error> {
    Ok(Difference {
        check: row.try_get(0)?,
        of: row.try_get(1)?,
        recorded: row.try_get(2)?,
        actual: row.try_get(3)?,
    })
}
