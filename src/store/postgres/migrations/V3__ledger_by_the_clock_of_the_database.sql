-- When an entry was made, by the clock of the database. Those of instances, by which batches are
-- received, may differ, and none may take the entries of another for old ones.
ALTER TABLE batch_ledger ADD COLUMN entered_at timestamptz NOT NULL DEFAULT now();
