-- name: try_lock
SELECT pg_try_advisory_xact_lock(5840130411726)

-- name: dispatch_chunks
-- $1 chunks in flight per batch, $2 in flight in all, $3 lease in seconds.
-- A batch's turn is what it has in flight: a small batch goes before the rest of a large one.
WITH RECURSIVE waiting (batch_id) AS (
    (SELECT batch_id FROM chunks WHERE state = 'ready' ORDER BY batch_id LIMIT 1)
    UNION ALL
    SELECT (
        SELECT batch_id FROM chunks WHERE state = 'ready' AND batch_id > waiting.batch_id
        ORDER BY batch_id LIMIT 1
    )
    FROM waiting WHERE waiting.batch_id IS NOT NULL
), flying AS (
    SELECT batch_id, count(*)::int AS chunks FROM chunks
    WHERE state IN ('dispatched', 'running') GROUP BY batch_id
), candidates AS (
    SELECT
        b.id AS batch_id,
        c.number,
        b.owner_id,
        b.traceparent,
        b.request_id,
        b.priority,
        coalesce(f.chunks, 0) + row_number() OVER (PARTITION BY b.id ORDER BY c.number) AS turn
    FROM (SELECT batch_id FROM waiting WHERE batch_id IS NOT NULL LIMIT 1000) AS w
    JOIN batches AS b ON b.id = w.batch_id AND b.status IN ('queued', 'running')
    LEFT JOIN flying AS f ON f.batch_id = b.id
    CROSS JOIN LATERAL (
        SELECT number FROM chunks WHERE batch_id = b.id AND state = 'ready'
        ORDER BY number LIMIT greatest(0, $1::int - coalesce(f.chunks, 0))
    ) AS c
), chosen AS (
    SELECT batch_id, number, owner_id, traceparent, request_id FROM candidates ORDER BY turn, priority DESC, batch_id
    LIMIT greatest(0, $2::int - coalesce((SELECT sum(chunks) FROM flying), 0)::int)
)
UPDATE chunks AS c SET
    state = 'dispatched',
    dispatches = c.dispatches + 1,
    leased_until = now() + least(3600, $3::float8 * 2 ^ least(c.dispatches, 10)) * interval '1 s'
FROM chosen
WHERE c.batch_id = chosen.batch_id AND c.number = chosen.number
RETURNING c.batch_id, c.number, chosen.owner_id, chosen.traceparent, chosen.request_id

-- name: promote_chunks
UPDATE chunks AS c SET state = 'ready'
FROM (
    SELECT batch_id, number FROM chunks WHERE state = 'delayed' AND due_at <= now()
    ORDER BY due_at LIMIT 1000 FOR UPDATE SKIP LOCKED
) AS due
WHERE c.batch_id = due.batch_id AND c.number = due.number

-- name: sweep_chunks
UPDATE chunks AS c SET state = 'ready', lost = least(1000, c.lost + (c.state = 'running')::int)
FROM (
    SELECT batch_id, number FROM chunks WHERE state IN ('dispatched', 'running') AND leased_until < now()
    LIMIT 1000 FOR UPDATE SKIP LOCKED
) AS stale
WHERE c.batch_id = stale.batch_id AND c.number = stale.number

-- name: measure_chunks
SELECT
    count(*) FILTER (WHERE state = 'ready') AS ready,
    coalesce(extract(epoch FROM now() - min(due_at) FILTER (WHERE state = 'ready')), 0)::float8
        AS oldest_ready_s,
    count(*) FILTER (WHERE state IN ('dispatched', 'running')) AS in_flight
FROM chunks WHERE state IN ('ready', 'dispatched', 'running')

-- name: next_cancelling
SELECT id FROM batches WHERE status = 'cancelling' ORDER BY id LIMIT 100

-- name: take_cancelled_chunks
DELETE FROM chunks AS c USING (
    SELECT batch_id, number FROM chunks
    WHERE batch_id = $1 AND state <> 'running' ORDER BY number LIMIT $2 FOR UPDATE SKIP LOCKED
) AS old
WHERE c.batch_id = old.batch_id AND c.number = old.number
RETURNING c.first_position, c.last_position, c.positions

-- name: cancel_ranges
INSERT INTO results (batch_id, position, status, attempts)
SELECT $1, position, 'cancelled', 0
FROM unnest($2::int[], $3::int[]) AS gap (low, high)
CROSS JOIN LATERAL generate_series(gap.low, gap.high) AS position
ON CONFLICT DO NOTHING

-- name: lock_removal
SELECT pg_try_advisory_xact_lock(5840130411727)

-- name: find_unused
SELECT id FROM batches WHERE status IN ('abandoned', 'expired') AND NOT purged ORDER BY id LIMIT $1

-- name: find_outdated
SELECT id FROM batches
WHERE finished_at IS NOT NULL AND finished_at < now() - make_interval(days => $2)
ORDER BY finished_at LIMIT $1

-- name: mark_purged
UPDATE batches SET purged = true WHERE id = ANY($1::uuid[])

-- name: remove_items
DELETE FROM items WHERE ctid = ANY(ARRAY(SELECT ctid FROM items WHERE batch_id = ANY($1::uuid[]) LIMIT $2))

-- name: remove_results
DELETE FROM results
WHERE ctid = ANY(ARRAY(SELECT ctid FROM results WHERE batch_id = ANY($1::uuid[]) LIMIT $2))

-- name: remove_batches
WITH gone AS (DELETE FROM failures WHERE batch_id = ANY($1::uuid[]))
DELETE FROM batches WHERE id = ANY($1::uuid[])
