-- name: ensure_rows
INSERT INTO batches (id, owner_id)
SELECT id, owner_id FROM unnest($1::uuid[], $2::text[]) AS new (id, owner_id)
ON CONFLICT DO NOTHING

-- name: peek_batches
SELECT id, owner_id, status, chunk_count FROM batches WHERE id = ANY($1::uuid[])

-- name: add_items
WITH added AS (
    INSERT INTO items (batch_id, position, custom_id, payload, line)
    SELECT * FROM unnest($1::uuid[], $2::int[], $3::text[], $4::text[], $5::int[])
    ON CONFLICT DO NOTHING
    RETURNING batch_id
)
SELECT batch_id, count(*) AS items FROM added GROUP BY batch_id

-- name: find_forgotten
-- Tasks that ended over a day ago, under ids that were accepted again since. The gateway keeps ended work for at least a
-- day: within it, an id that is accepted again means that the gateway has lost its record, as by the restore of an old
-- backup, and is that of the task that has ended.
SELECT b.id FROM batches AS b
JOIN unnest($1::uuid[], $2::text[], $3::timestamptz[]) AS again (id, owner_id, accepted_at) USING (id, owner_id)
WHERE b.kind = 'task' AND b.finished_at < now() - interval '1 day' AND b.accepted_at < again.accepted_at

-- name: wait_for_removal
-- The removal of ended batches locks their rows in the other order; this waits until it has committed.
SELECT pg_advisory_xact_lock(5840130411727)

-- name: remove_forgotten
DELETE FROM batches WHERE id = ANY($1::uuid[]) AND finished_at < now() - interval '1 day' RETURNING id

-- name: last_position
SELECT max(position) FROM items WHERE batch_id = $1

-- name: create_chunks
INSERT INTO chunks (
    batch_id, number, state, first_position, last_position, remaining, due_at, owner_id, priority, gate
)
SELECT
    batch.id,
    number,
    CASE WHEN batch.due_at > now() THEN 'delayed' WHEN batch.gate IS NOT NULL THEN 'waiting' ELSE 'ready' END,
    number * batch.size,
    least((number + 1) * batch.size, batch.total) - 1,
    least((number + 1) * batch.size, batch.total) - number * batch.size,
    coalesce(batch.due_at, now()),
    known.owner_id,
    known.priority,
    batch.gate
FROM unnest($1::uuid[], $2::int[], $3::int[], $4::timestamptz[], $5::text[])
    AS batch (id, total, size, due_at, gate)
JOIN batches AS known USING (id)
CROSS JOIN LATERAL generate_series(0, (batch.total - 1) / batch.size) AS number

-- name: note_traces
UPDATE batches SET traceparent = noted.traceparent, request_id = noted.request_id
FROM unnest($1::uuid[], $2::text[], $3::text[]) AS noted (id, traceparent, request_id)
WHERE batches.id = noted.id

-- name: add_tasks
-- Inserts tasks that have no row yet. The scopes of a task are one text, separated by spaces.
INSERT INTO batches (
    id, owner_id, kind, operation, status, priority, options, accepted_at, not_before, total, received, chunk_count,
    revision, appended_at, metadata, expires_at, on_finished, scopes, traceparent, request_id
)
SELECT
    id, owner_id, kind, operation, status, priority, options::jsonb, accepted_at, not_before, total, received,
    chunk_count, revision, appended_at, metadata, expires_at, on_finished, string_to_array(scopes, ' '), traceparent,
    request_id
FROM unnest(
    $1::uuid[], $2::text[], $3::text[], $4::text[], $5::text[], $6::smallint[], $7::text[], $8::timestamptz[],
    $9::timestamptz[], $10::int[], $11::int[], $12::int[], $13::int[], $14::timestamptz[], $15::text[],
    $16::timestamptz[], $17::text[], $18::text[], $19::text[], $20::text[]
) AS new (
    id, owner_id, kind, operation, status, priority, options, accepted_at, not_before, total, received, chunk_count,
    revision, appended_at, metadata, expires_at, on_finished, scopes, traceparent, request_id
)
ORDER BY id
ON CONFLICT DO NOTHING
RETURNING id

-- name: lock_movable
-- Waits for a step of the coordinator that has a chunk: skipped, it would keep its old time. Before the batches are
-- locked, as in all transactions: those that wait for a batch may have chunks, and those that have a batch wait for none.
SELECT FROM chunks
WHERE batch_id = ANY($1::uuid[]) AND state IN ('delayed', 'waiting', 'ready', 'held')
ORDER BY batch_id, number FOR UPDATE

-- name: move_chunks
-- Only those that this transaction has locked, or could lock at once: a chunk that somebody has by now is beginning.
UPDATE chunks AS c SET
    due_at = moved.due_at,
    state = CASE
        WHEN c.state = 'held' THEN 'held'
        WHEN moved.due_at > now() THEN 'delayed'
        WHEN c.gate IS NULL THEN 'ready'
        ELSE 'waiting'
    END
FROM (
    SELECT batch_id, number, due.due_at FROM unnest($1::uuid[], $2::timestamptz[]) AS due (id, due_at)
    JOIN chunks ON batch_id = id
    WHERE state IN ('delayed', 'waiting', 'ready', 'held') FOR UPDATE OF chunks SKIP LOCKED
) AS moved
WHERE c.batch_id = moved.batch_id AND c.number = moved.number

-- name: find_failing
-- The batches that have failed items with the code that is given for them.
SELECT DISTINCT batch_id FROM unnest($1::uuid[], $2::text[]) AS wanted (batch_id, code)
JOIN failures AS f USING (batch_id, code) WHERE f.items > 0

-- name: list_beyond
-- Batches and tasks that have not ended, and have had scopes beyond $2 since before $4. Those that were not described yet
-- have none.
SELECT id FROM batches
WHERE owner_id = $1 AND kind IN ('batch', 'task') AND finished_at IS NULL AND operation IS NOT NULL
    AND status IN ('open', 'validating', 'queued', 'running', 'paused', 'cancelling')
    AND (scopes IS NULL OR NOT scopes <@ $2::text[]) AND coalesce(scoped_at, accepted_at) <= $4
ORDER BY id LIMIT $3
