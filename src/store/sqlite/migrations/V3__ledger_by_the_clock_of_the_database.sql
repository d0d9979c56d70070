-- When an entry was made, by the clock of the database, as on PostgreSQL. SQLite cannot add a column
-- with such a default; entries serve the process that made them, so the table may begin anew.
DROP TABLE batch_ledger;
CREATE TABLE batch_ledger (
    batch_id        BLOB PRIMARY KEY,
    lane            INTEGER NOT NULL,
    first_seq       INTEGER NOT NULL,
    events          INTEGER NOT NULL,
    committed_at    INTEGER NOT NULL,
    entered_at      INTEGER NOT NULL DEFAULT (unixepoch() * 1000000)
) STRICT, WITHOUT ROWID;
