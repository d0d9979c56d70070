-- A page of events, newest first. Events of a lane are ordered by time: each lane yields its first
-- events of a span of numbers, and the page is the first of those. The plan is made for the values,
-- so a filter that is NULL costs nothing.
--
-- $1  bigint[]     the last number to list of each lane
-- $2  text         the topic
-- $3  smallint     the lane of the topic
-- $4  text         the source
-- $5  timestamptz  received at this time or later
-- $6  timestamptz  received before this time
-- $7  smallint     the lane of the event after which the page begins
-- $8  bigint       its number in the lane
-- $9  timestamptz  when it was received
-- $10 bigint       the maximum number of events
-- $11 bigint       the maximum bytes of payload; the first event is always included
WITH spans AS MATERIALIZED (
    SELECT lane,
           greatest(0, CASE WHEN $5::timestamptz IS NOT NULL THEN first_seq_at(lane, $5) END)
               AS first,
           least(
               least(head, ($1::bigint[])[lane + 1]) + 1,
               CASE WHEN $6::timestamptz IS NOT NULL THEN first_seq_at(lane, $6) END,
               -- Events received at the same time are ordered by lane. Times have a resolution of
               -- one microsecond.
               CASE
                   WHEN $7::smallint IS NULL THEN NULL
                   WHEN lane = $7 THEN $8::bigint
                   WHEN lane > $7 THEN first_seq_at(lane, $9::timestamptz)
                   ELSE first_seq_at(lane, $9::timestamptz + interval '1 microsecond')
               END
           ) AS beyond
    FROM lanes WHERE $3::smallint IS NULL OR lane = $3
), candidates AS (
    SELECT event.* FROM spans CROSS JOIN LATERAL (
        SELECT * FROM processed_events e
        WHERE e.lane = spans.lane AND e.seq >= spans.first AND e.seq < spans.beyond
        AND ($2::text IS NULL OR topic = $2) AND ($4::text IS NULL OR source = $4)
        ORDER BY seq DESC LIMIT $10::bigint + 1
    ) AS event
    ORDER BY received_at DESC, lane DESC, seq DESC LIMIT $10::bigint + 1
), packed AS (
    -- Cut to its bytes here, so that no large payload is transferred in vain. None is decompressed
    -- whose compressed size, less a header of four bytes, is already too large.
    SELECT *, row_number() OVER placed AS place, count(*) OVER () AS candidates,
           sum(pg_column_size(payload) - 4) OVER placed AS packed
    FROM candidates WINDOW placed AS (ORDER BY received_at DESC, lane DESC, seq DESC)
), measured AS (
    SELECT *, sum(octet_length(payload::text)) OVER (ORDER BY place) AS bytes
    FROM packed WHERE place = 1 OR packed <= $11::bigint
)
SELECT topic, event_id, lane, seq, occurred_at, source, payload::text, received_at, candidates
FROM measured WHERE place <= $10::bigint AND (place = 1 OR bytes <= $11::bigint) ORDER BY place
