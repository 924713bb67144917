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
WITH old AS (
    DELETE FROM batches WHERE id = ANY($1::uuid[]) AND finished_at < now() - interval '1 day' RETURNING id
), chunks_gone AS (
    DELETE FROM chunks USING old WHERE batch_id = id
), results_gone AS (
    DELETE FROM results USING old WHERE batch_id = id
), attempts_gone AS (
    DELETE FROM attempts USING old WHERE batch_id = id
), failures_gone AS (
    DELETE FROM failures USING old WHERE batch_id = id
)
DELETE FROM items USING old WHERE batch_id = id

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

-- name: find_expired_uploads
SELECT id, owner_id FROM batches
WHERE status = 'open' AND created_at < now() - make_interval(secs => $1)
    AND (appended_at IS NULL OR appended_at < now() - make_interval(secs => $1))
    AND id <> ALL ($2::uuid[])
ORDER BY created_at LIMIT $3

-- name: traces_of
SELECT id, traceparent, request_id FROM batches WHERE id = ANY($1)

-- name: note_traces
UPDATE batches SET traceparent = noted.traceparent, request_id = noted.request_id
FROM unnest($1::uuid[], $2::text[], $3::text[]) AS noted (id, traceparent, request_id)
WHERE batches.id = noted.id
