-- name: list_pauses
SELECT kind, name, reason, paused_by, paused_at FROM pauses ORDER BY kind, name

-- name: add_pause
-- An existing pause stays as it is, with the time at which the work stopped.
INSERT INTO pauses (kind, name, reason, paused_by) VALUES ($1, $2, $3, $4) ON CONFLICT DO NOTHING

-- name: remove_pause
DELETE FROM pauses WHERE kind = $1 AND name = $2 RETURNING name

-- name: measure_pauses
SELECT
    count(*) FILTER (WHERE kind = 'operation') AS operations, count(*) FILTER (WHERE kind = 'owner') AS owners,
    coalesce(extract(epoch FROM now() - min(paused_at)), 0)::float8 AS longest_s
FROM pauses

-- name: hold_paused
-- Takes chunks of paused operations and owners out of the queue. Workers do not claim them anyway, but they would
-- block the other work of their owners.
WITH paused AS MATERIALIZED (
    SELECT b.id FROM batches AS b
    WHERE b.status = 'queued' AND EXISTS (
        SELECT FROM pauses AS p
        WHERE (p.kind = 'owner' AND p.name = b.owner_id) OR (p.kind = 'operation' AND p.name = b.operation)
    )
    UNION ALL
    SELECT b.id FROM batches AS b
    WHERE b.status = 'running' AND EXISTS (
        SELECT FROM pauses AS p
        WHERE (p.kind = 'owner' AND p.name = b.owner_id) OR (p.kind = 'operation' AND p.name = b.operation)
    )
)
UPDATE chunks AS c SET state = 'held'
FROM (
    SELECT queued.batch_id, queued.number FROM paused CROSS JOIN LATERAL (
        SELECT * FROM (
            SELECT batch_id, number FROM chunks WHERE state = 'ready' AND batch_id = paused.id
            LIMIT $1 FOR UPDATE SKIP LOCKED
        ) AS ready
        UNION ALL
        SELECT * FROM (
            SELECT batch_id, number FROM chunks WHERE state = 'waiting' AND batch_id = paused.id
            LIMIT $1 FOR UPDATE SKIP LOCKED
        ) AS limited
    ) AS queued
    LIMIT $1
) AS found
WHERE c.batch_id = found.batch_id AND c.number = found.number
