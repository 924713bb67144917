-- name: claim_chunk
-- Whoever had claimed it before and did not give it back is lost. The commit need not wait for the disk: a
-- claim that a crash takes back only lets the chunk run again.
UPDATE chunks AS c SET
    state = 'running',
    run = c.run + 1,
    lost = least(1000, c.lost + (c.state = 'running' AND c.run IS DISTINCT FROM $4)::int),
    leased_until = now() + make_interval(secs => $3)
FROM batches AS b
WHERE c.batch_id = $1 AND c.number = $2 AND c.due_at <= now()
    AND b.id = $1 AND b.status IN ('queued', 'running')
RETURNING
    c.run, c.lost, c.attempt, c.first_position, c.last_position, c.positions,
    b.owner_id, b.operation, b.status, b.accepted_at,
    now() AS claimed_at, set_config('synchronous_commit', 'off', true) AS commit

-- name: release_chunk
UPDATE chunks SET state = 'ready' WHERE batch_id = $1 AND number = $2 AND state = 'dispatched'

-- name: load_range
SELECT i.position, i.custom_id, i.payload FROM items AS i
WHERE i.batch_id = $1 AND i.position BETWEEN $2 AND $3
    AND NOT EXISTS (
        SELECT FROM results AS r
        WHERE r.batch_id = $1 AND r.position = i.position AND r.position BETWEEN $2 AND $3
    )
ORDER BY i.position

-- name: load_listed
SELECT i.position, i.custom_id, i.payload FROM items AS i
WHERE i.batch_id = $1 AND i.position = ANY($2::int[])
    AND NOT EXISTS (SELECT FROM results AS r WHERE r.batch_id = $1 AND r.position = i.position)
ORDER BY i.position

-- name: finish_chunk
DELETE FROM chunks WHERE batch_id = $1 AND number = $2 AND run = $3 RETURNING true

-- name: keep_chunk
UPDATE chunks SET
    state = $4, remaining = remaining - $5, leased_until = now() + make_interval(secs => $6)
WHERE batch_id = $1 AND number = $2 AND run = $3
RETURNING (SELECT status FROM batches WHERE id = $1)

-- name: create_chunk
INSERT INTO chunks (
    batch_id, number, state, attempt, first_position, last_position, positions, remaining, due_at
)
VALUES ($1, $2, 'delayed', $3, $4, $5, $6, $7, now() + make_interval(secs => $8))
