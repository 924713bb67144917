-- The transaction that wrote the row. What is committed later than a snapshot has a stamp that was not yet given,
-- or was at work, when the snapshot was taken: a look that begins at the first live stamp passes no dead rows
-- and misses nothing. Rows of this moment get the transaction of this migration.
ALTER TABLE chunks ADD COLUMN stamp bigint NOT NULL DEFAULT (pg_current_xact_id()::text::bigint);

CREATE FUNCTION stamp_chunk() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.stamp := pg_current_xact_id()::text::bigint;
    RETURN NEW;
END
$$;
-- For statements that do not stamp themselves.
CREATE TRIGGER stamp_chunks BEFORE UPDATE ON chunks FOR EACH ROW
WHEN (NEW.stamp = OLD.stamp) EXECUTE FUNCTION stamp_chunk();

-- An owner's chunks of one priority; those that were at work before are a lane of their own, ahead of the others.
CREATE FUNCTION lane_of(priority smallint, run int) RETURNS smallint LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN ((9 - priority) * 2 + (run = 0)::int)::smallint;
CREATE INDEX chunks_in_lanes ON chunks (owner_id, lane_of(priority, run), stamp, batch_id, number)
WHERE state = 'ready';
CREATE INDEX chunks_ready_by_stamp ON chunks (stamp, owner_id, lane_of(priority, run)) WHERE state = 'ready';
CREATE INDEX chunks_in_flight_by_stamp ON chunks (stamp, owner_id) WHERE state IN ('dispatched', 'running');
