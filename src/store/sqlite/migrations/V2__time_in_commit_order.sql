-- Times of receipt never run backwards. So the order of commits is also the order in time, a time is
-- found in it by halving, and the index on received_at is not needed.
ALTER TABLE lanes ADD COLUMN last_received_at INTEGER NOT NULL DEFAULT -62135596800000000;

-- A clock that was set back may have stored times in another order.
UPDATE processed_events SET received_at = o.latest
FROM (
    SELECT seq, received_at, max(received_at) OVER (ORDER BY seq) AS latest FROM processed_events
) AS o
WHERE processed_events.seq = o.seq AND o.received_at < o.latest;

UPDATE lanes SET last_received_at =
    coalesce((SELECT max(received_at) FROM processed_events), last_received_at);

DROP INDEX processed_events_received;
