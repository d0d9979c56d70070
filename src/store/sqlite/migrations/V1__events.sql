-- The same tables as on PostgreSQL. Times are microseconds since 1970, UTC.

-- Which database this is. Page tokens and cursors carry the id, so that one from another database
-- is refused instead of misread.
CREATE TABLE store_identity (
    store_id    BLOB NOT NULL CHECK (length(store_id) = 16),
    singleton   INTEGER PRIMARY KEY DEFAULT 1 CHECK (singleton = 1)
) STRICT;
INSERT INTO store_identity (store_id) VALUES (randomblob(16));

-- SQLite has one writer, so one lane.
CREATE TABLE lanes (
    lane        INTEGER PRIMARY KEY,
    head        INTEGER NOT NULL DEFAULT 0  -- the last seq given out
) STRICT;
INSERT INTO lanes (lane) VALUES (0);

-- Each event once. seq is the rowid, so rows lie in commit order.
CREATE TABLE processed_events (
    seq         INTEGER PRIMARY KEY,
    topic       TEXT NOT NULL,
    event_id    TEXT NOT NULL,
    occurred_at INTEGER,                    -- NULL: the producer gave no timestamp
    source      TEXT NOT NULL,
    payload     TEXT NOT NULL,              -- the exact JSON text that came in
    received_at INTEGER NOT NULL,
    UNIQUE (topic, event_id)
) STRICT;
CREATE INDEX processed_events_received ON processed_events (received_at, seq);

-- What came in, per topic, counted in the transaction that stores it.
CREATE TABLE audit_stats (
    topic               TEXT PRIMARY KEY,
    received            INTEGER NOT NULL,
    unique_processed    INTEGER NOT NULL,
    duplicate_dropped   INTEGER NOT NULL,
    conflicts           INTEGER NOT NULL,   -- part of duplicate_dropped
    last_received_at    INTEGER NOT NULL,
    CHECK (received = unique_processed + duplicate_dropped),
    CHECK (conflicts <= duplicate_dropped)
) STRICT, WITHOUT ROWID;

-- The batches of the last hour, so that a batch whose COMMIT failed half-way can be told from one
-- that never happened. Its events have seq in [first_seq, first_seq + events).
CREATE TABLE batch_ledger (
    batch_id        BLOB PRIMARY KEY,
    lane            INTEGER NOT NULL,
    first_seq       INTEGER NOT NULL,
    events          INTEGER NOT NULL,
    committed_at    INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- For people: times that can be read.
CREATE VIEW events AS
SELECT topic, event_id,
       strftime('%Y-%m-%dT%H:%M:%fZ', coalesce(occurred_at, received_at) / 1e6, 'unixepoch')
           AS "timestamp",
       source, payload,
       strftime('%Y-%m-%dT%H:%M:%fZ', received_at / 1e6, 'unixepoch') AS received_at
FROM processed_events;
