//! Reads: listings, look-ups and counters. Counters are one statement, hence one snapshot. Events
//! may take several, because stored events never change and new ones have other places.

use deadpool_postgres::Object;
use postgres_types::ToSql;
use time::OffsetDateTime;
use tokio_postgres::{Error, Row};
use tokio_stream::StreamExt;
use uuid::Uuid;

use super::{FeedQuery, Found, ListQuery, Page, Stats};
use crate::{
    event::{Event, EventKey, Name, Payload, Position},
    store::{Counters, LaneState, Mark, Place, TopicStats, lane_of},
};

/// Reads a page. The two statements differ only in their order.
const LIST_NEWEST: &str = include_str!("list_newest.sql");

const LIST_OLDEST: &str = include_str!("list_oldest.sql");

/// Events fetched first for a page, and keys per look-up. To cut a page of large payloads, the
/// database must decompress all that it examines.
const FIRST_EVENTS: usize = 64;

/// Reads a page: a few events first, and the rest if those were small.
pub(super) async fn list(
    connection: &Object,
    lanes: u16,
    query: &ListQuery,
) -> Result<Page, Error> {
    let first = ListQuery { limit: query.limit.min(FIRST_EVENTS), ..query.clone() };
    let mut page = list_at_once(connection, lanes, &first).await?;
    let bytes: usize = page.events.iter().map(|event| event.payload.as_str().len()).sum();
    let wanted = query.limit - page.events.len();
    let whole = page.events.len() == FIRST_EVENTS;
    if let (true, true, Some(last)) = (page.more && whole, wanted > 0, page.events.last()) {
        let room = query.max_bytes.saturating_sub(bytes);
        let after = Some(Place::from(last));
        let rest = ListQuery { after, limit: wanted, max_bytes: room, ..query.clone() };
        let rest = list_at_once(connection, lanes, &rest).await?;
        // The first event is always included.
        let fits = rest.events.first().is_some_and(|event| event.payload.as_str().len() <= room);
        if fits {
            page.events.extend(rest.events);
            page.more = rest.more;
        }
    }
    Ok(page)
}

/// Reads a page with one statement.
async fn list_at_once(connection: &Object, lanes: u16, query: &ListQuery) -> Result<Page, Error> {
    let filter = &query.filter;
    let lane = filter.topic.as_deref().map(|topic| lane_of(topic, lanes) as i16);
    let sql = if filter.oldest_first { LIST_OLDEST } else { LIST_NEWEST };
    let statement = connection.prepare_cached(sql).await?;
    let values: [&(dyn ToSql + Sync); 11] = [
        &query.heads,
        &filter.topic,
        &lane,
        &filter.source,
        &filter.start_time.map(OffsetDateTime::from),
        &filter.end_time.map(OffsetDateTime::from),
        &query.after.map(|after| after.position.lane as i16),
        &query.after.map(|after| after.position.seq),
        &query.after.map(|after| OffsetDateTime::from(after.received_at)),
        &(query.limit as i64),
        &(query.max_bytes as i64),
    ];
    let rows = connection.query(&statement, &values).await?;
    let candidates: i64 = rows.first().map_or(Ok(0), |row| row.try_get(8))?;
    Ok(Page {
        more: candidates > rows.len() as i64,
        events: rows.iter().map(event).collect::<Result<_, _>>()?,
    })
}

/// The id of the store.
pub(super) async fn store_id(connection: &Object) -> Result<Option<Uuid>, Error> {
    let statement = connection.prepare_cached("SELECT store_id FROM store_identity").await?;
    let row = connection.query_opt(&statement, &[]).await?;
    row.map(|row| row.try_get(0)).transpose()
}

/// See [`super::Store::heads`]. Times are those of the events, not of the lane rows.
pub(super) async fn heads(connection: &Object, at: &[i64]) -> Result<Vec<LaneState>, Error> {
    let sql = "
        SELECT head, last.received_at, found.seq, found.received_at
        FROM lanes l
        LEFT JOIN LATERAL (
            SELECT e.received_at FROM processed_events e
            WHERE e.lane = l.lane AND e.seq <= l.head ORDER BY e.seq DESC LIMIT 1
        ) last ON true
        LEFT JOIN LATERAL (
            SELECT e.seq, e.received_at FROM processed_events e
            WHERE e.lane = l.lane AND e.seq <= ($1::bigint[])[l.lane + 1]
            ORDER BY e.seq DESC LIMIT 1
        ) found ON true
        ORDER BY l.lane";
    let statement = connection.prepare_cached(sql).await?;
    let rows = connection.query(&statement, &[&at]).await?;
    let mark = |seq, received_at: Option<OffsetDateTime>| Mark {
        seq,
        received_at: received_at.map(Into::into),
    };
    let lane = |row: &Row| {
        let head = mark(row.try_get(0)?, row.try_get(1)?);
        let (found, received_at) = (row.try_get::<_, Option<i64>>(2)?, row.try_get(3)?);
        Ok(LaneState { head, found: found.map(|seq| mark(seq, received_at)) })
    };
    rows.iter().map(lane).collect()
}

/// Reads a page of the feed, row by row, so that no more is in memory than was asked for. Rows
/// beyond the limit are discarded.
pub(super) async fn read(connection: &Object, query: &FeedQuery) -> Result<Page, Error> {
    let sql = "
        SELECT topic, event_id, lane, seq, occurred_at, source, payload::text, received_at
        FROM processed_events
        WHERE lane = $1 AND seq > $2 AND seq <= $4 AND ($5::text[] IS NULL OR topic = ANY($5))
        AND coalesce((SELECT at.received_at = $3 FROM processed_events at
                      WHERE at.lane = $1 AND at.seq = $2), true)
        ORDER BY seq LIMIT $6";
    let topics = (!query.topics.is_empty()).then_some(&query.topics[..]);
    let values: [&(dyn ToSql + Sync); 6] = [
        &(query.lane as i16),
        &query.after.seq,
        &query.after.received_at.map(OffsetDateTime::from),
        &query.last,
        &topics,
        &(query.limit as i64 + 1),
    ];
    let statement = connection.prepare_cached(sql).await?;
    let mut rows = std::pin::pin!(connection.query_raw(&statement, values).await?);
    let mut page = Page::default();
    let mut bytes = 0;
    while let Some(row) = rows.next().await.transpose()? {
        let event = event(&row)?;
        bytes += event.payload.as_str().len();
        let full = bytes > query.max_bytes && !page.events.is_empty();
        if full || page.events.len() == query.limit {
            page.more = true;
            break;
        }
        page.events.push(event);
    }
    Ok(page)
}

/// See [`super::Store::positions_at`].
pub(super) async fn positions_at(connection: &Object, place: Place) -> Result<Vec<i64>, Error> {
    // Events received at the same time are ordered by lane.
    let sql = "
        SELECT CASE
                   WHEN lane = $1 THEN $2::bigint
                   WHEN lane > $1 THEN first_seq_at(lane, $3::timestamptz) - 1
                   ELSE first_seq_at(lane, $3::timestamptz + interval '1 microsecond') - 1
               END
        FROM lanes ORDER BY lane";
    let Place { received_at, position } = place;
    let values: [&(dyn ToSql + Sync); 3] =
        [&(position.lane as i16), &position.seq, &OffsetDateTime::from(received_at)];
    let statement = connection.prepare_cached(sql).await?;
    let rows = connection.query(&statement, &values).await?;
    rows.iter().map(|row| row.try_get(0)).collect()
}

/// Looks up keys in chunks, until the result has `max_bytes`.
pub(super) async fn get(
    connection: &Object,
    keys: &[EventKey],
    max_bytes: usize,
) -> Result<Found, Error> {
    // Up to and including the event that exceeds the limit.
    let sql = "
        WITH measured AS (
            SELECT e.*, k.place, sum(octet_length(e.payload::text)) OVER (
                       ORDER BY k.place ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING
                   ) AS before
            FROM unnest($1::text[], $2::text[]) WITH ORDINALITY AS k (topic, event_id, place)
            JOIN processed_events e ON e.topic = k.topic AND e.event_id = k.event_id
        )
        SELECT topic, event_id, lane, seq, occurred_at, source, payload::text, received_at, place
        FROM measured WHERE coalesce(before, 0) <= $3 ORDER BY place";
    let statement = connection.prepare_cached(sql).await?;
    let mut found = Found::default();
    let mut bytes = 0;
    for keys in keys.chunks(FIRST_EVENTS) {
        let (topics, ids): (Vec<&str>, Vec<&str>) =
            keys.iter().map(|key| (&*key.topic, &*key.event_id)).unzip();
        let room = max_bytes as i64 - bytes as i64;
        for row in connection.query(&statement, &[&topics, &ids, &room]).await? {
            let event = event(&row)?;
            let index = found.reached + row.try_get::<_, i64>(8)? as usize - 1;
            bytes += event.payload.as_str().len();
            let is_full = bytes > max_bytes;
            if is_full && !found.events.is_empty() {
                found.reached = index;
                return Ok(found);
            }
            found.events.push((index, event));
            if is_full {
                found.reached = index + 1;
                return Ok(found);
            }
        }
        found.reached += keys.len();
    }
    Ok(found)
}

fn event(row: &Row) -> Result<Event, Error> {
    let received_at = row.try_get::<_, OffsetDateTime>(7)?.into();
    let timestamp: Option<OffsetDateTime> = row.try_get(4)?;
    Ok(Event {
        key: EventKey {
            topic: Name::stored(row.try_get(0)?),
            event_id: Name::stored(row.try_get(1)?),
        },
        timestamp: timestamp.map_or(received_at, Into::into),
        source: Name::stored(row.try_get(5)?),
        payload: Payload::trusted(row.try_get::<_, String>(6)?),
        received_at,
        position: Position { lane: row.try_get::<_, i16>(2)? as u16, seq: row.try_get(3)? },
    })
}

pub(super) async fn stats(
    connection: &Object,
    topic: Option<&str>,
    max_topics: usize,
) -> Result<Stats, Error> {
    // The totals are repeated in each row, for one snapshot. At least one row is requested.
    let sql = "
        SELECT topic, received, unique_processed, duplicate_dropped, conflicts, last_received_at,
               sum(received) OVER ()::bigint, sum(unique_processed) OVER ()::bigint,
               sum(duplicate_dropped) OVER ()::bigint, sum(conflicts) OVER ()::bigint,
               count(*) OVER ()
        FROM audit_stats WHERE $1::text IS NULL OR topic = $1
        ORDER BY received DESC, topic LIMIT $2";
    let statement = connection.prepare_cached(sql).await?;
    let rows = connection.query(&statement, &[&topic, &(max_topics.max(1) as i64)]).await?;
    let Some(first) = rows.first() else { return Ok(Stats::default()) };
    Ok(Stats {
        totals: counters(first, 6)?,
        topics_active: first.try_get(10)?,
        topics: rows.iter().take(max_topics).map(topic_stats).collect::<Result<_, _>>()?,
    })
}

fn topic_stats(row: &Row) -> Result<TopicStats, Error> {
    Ok(TopicStats {
        topic: row.try_get(0)?,
        counters: counters(row, 1)?,
        last_received_at: row.try_get::<_, OffsetDateTime>(5)?.into(),
    })
}

/// Four counters from four columns, starting at `first`.
fn counters(row: &Row, first: usize) -> Result<Counters, Error> {
    Ok(Counters {
        received: row.try_get(first)?,
        unique_processed: row.try_get(first + 1)?,
        duplicate_dropped: row.try_get(first + 2)?,
        conflicts: row.try_get(first + 3)?,
    })
}
