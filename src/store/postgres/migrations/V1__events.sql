-- Which database this is. Page tokens and cursors carry the id, so that one from another database
-- is refused instead of misread.
CREATE TABLE store_identity (
    store_id    uuid NOT NULL DEFAULT gen_random_uuid(),
    singleton   boolean PRIMARY KEY DEFAULT true CHECK (singleton)
);
INSERT INTO store_identity DEFAULT VALUES;

-- Serial commit queues. A batch takes the row of its lane before anything else and holds it until
-- it is committed, so within a lane seq rises in commit order. How many lanes there are is fixed
-- when the database is created: a topic must never change its lane.
CREATE TABLE lanes (
    lane        smallint PRIMARY KEY,
    head        bigint NOT NULL DEFAULT 0   -- the last seq given out
) WITH (fillfactor = 10);
INSERT INTO lanes (lane) SELECT generate_series(0, 3);

-- Each event once. Names are compared byte by byte whatever the database's collation.
CREATE TABLE processed_events (
    topic       text COLLATE "C" NOT NULL,
    event_id    text COLLATE "C" NOT NULL,
    lane        smallint NOT NULL,
    seq         bigint NOT NULL,
    occurred_at timestamptz,                -- NULL: the producer gave no timestamp
    source      text COLLATE "C" NOT NULL,
    payload     json NOT NULL,              -- json, not jsonb: the exact text that came in
    received_at timestamptz NOT NULL,
    PRIMARY KEY (topic, event_id)
);
CREATE UNIQUE INDEX processed_events_position ON processed_events (lane, seq);
CREATE INDEX processed_events_received ON processed_events (received_at, lane, seq);

-- What came in, per topic, counted in the transaction that stores it.
CREATE TABLE audit_stats (
    topic               text COLLATE "C" PRIMARY KEY,
    received            bigint NOT NULL,
    unique_processed    bigint NOT NULL,
    duplicate_dropped   bigint NOT NULL,
    conflicts           bigint NOT NULL,    -- part of duplicate_dropped
    last_received_at    timestamptz NOT NULL,
    CHECK (received = unique_processed + duplicate_dropped),
    CHECK (conflicts <= duplicate_dropped)
) WITH (fillfactor = 50);

-- The batches of the last hour, so that a batch whose COMMIT got no answer can be told from one
-- that never happened. Its events have seq in [first_seq, first_seq + events).
CREATE TABLE batch_ledger (
    batch_id        uuid PRIMARY KEY,
    lane            smallint NOT NULL,
    first_seq       bigint NOT NULL,
    events          bigint NOT NULL,
    committed_at    timestamptz NOT NULL DEFAULT now()
);

-- For people: payloads as jsonb, to query with its operators.
CREATE VIEW events AS
SELECT topic, event_id, coalesce(occurred_at, received_at) AS "timestamp", source,
       payload::jsonb AS payload, received_at
FROM processed_events;
