-- name: hold_chunks
-- Takes up to about $1 chunks of paused batches out of the queue, the same number of each owner; running ones come back
-- to it, or wait until they are due. With $2 also those of operations and owners that an administrator has paused:
-- workers do not claim them anyway, but they would block the other work of their owners.
WITH paused AS (
    SELECT id, owner_id FROM batches WHERE status = 'paused'
    UNION ALL
    SELECT b.id, b.owner_id FROM batches AS b
    WHERE $2 AND b.status = 'queued' AND EXISTS (
        SELECT FROM pauses AS p
        WHERE (p.kind = 'owner' AND p.name = b.owner_id) OR (p.kind = 'operation' AND p.name = b.operation)
    )
    UNION ALL
    SELECT b.id, b.owner_id FROM batches AS b
    WHERE $2 AND b.status = 'running' AND EXISTS (
        SELECT FROM pauses AS p
        WHERE (p.kind = 'owner' AND p.name = b.owner_id) OR (p.kind = 'operation' AND p.name = b.operation)
    )
), owners AS MATERIALIZED (
    -- If there are more owners, others come the next time.
    SELECT array_agg(id) AS ids FROM paused
    WHERE EXISTS (SELECT FROM chunks WHERE state = 'ready' AND batch_id = paused.id)
        OR EXISTS (SELECT FROM chunks WHERE state = 'waiting' AND batch_id = paused.id)
    GROUP BY owner_id ORDER BY random() LIMIT $1
), found AS (
    SELECT share.batch_id, share.number FROM owners CROSS JOIN LATERAL (
        SELECT queued.batch_id, queued.number FROM unnest(owners.ids) AS own (id) CROSS JOIN LATERAL (
            SELECT * FROM (
                SELECT batch_id, number FROM chunks WHERE state = 'ready' AND batch_id = own.id
                LIMIT $1 FOR UPDATE SKIP LOCKED
            ) AS ready
            UNION ALL
            SELECT * FROM (
                SELECT batch_id, number FROM chunks WHERE state = 'waiting' AND batch_id = own.id
                LIMIT $1 FOR UPDATE SKIP LOCKED
            ) AS limited
        ) AS queued
        LIMIT (SELECT ceil($1::float8 / count(*))::int FROM owners)
    ) AS share
)
UPDATE chunks AS c SET state = 'held' FROM found WHERE c.batch_id = found.batch_id AND c.number = found.number

-- name: release_chunks
-- Puts up to about $1 chunks of resumed batches back into the queue, the same number of each owner; one index probe for
-- each batch. The wait of chunks that became due meanwhile begins now.
WITH RECURSIVE paused (batch_id) AS (
    (SELECT batch_id FROM chunks WHERE state = 'held' ORDER BY batch_id LIMIT 1)
    UNION ALL
    SELECT following.batch_id FROM paused CROSS JOIN LATERAL (
        SELECT batch_id FROM chunks WHERE state = 'held' AND batch_id > paused.batch_id
        ORDER BY batch_id LIMIT 1
    ) AS following
), owners AS MATERIALIZED (
    -- If there are more owners, others come the next time.
    SELECT array_agg(b.id) AS ids FROM paused JOIN batches AS b ON b.id = paused.batch_id
    WHERE b.status IN ('queued', 'running') AND NOT EXISTS (
        SELECT FROM pauses AS p
        WHERE (p.kind = 'owner' AND p.name = b.owner_id) OR (p.kind = 'operation' AND p.name = b.operation)
    )
    GROUP BY b.owner_id ORDER BY random() LIMIT $1
), found AS (
    SELECT share.batch_id, share.number FROM owners CROSS JOIN LATERAL (
        SELECT held.batch_id, held.number FROM unnest(owners.ids) AS own (id) CROSS JOIN LATERAL (
            SELECT batch_id, number FROM chunks WHERE state = 'held' AND batch_id = own.id
            LIMIT $1 FOR UPDATE SKIP LOCKED
        ) AS held
        LIMIT (SELECT ceil($1::float8 / count(*))::int FROM owners)
    ) AS share
)
UPDATE chunks AS c SET
    state = CASE WHEN c.due_at > now() THEN 'delayed' WHEN c.gate IS NULL THEN 'ready' ELSE 'waiting' END,
    due_at = greatest(c.due_at, now())
FROM found WHERE c.batch_id = found.batch_id AND c.number = found.number

-- name: next_retrying
-- Up to $2 batches except those in $1, of the next owners after $3, in a circle: the first of each owner, then the second
-- of each, and so on.
WITH RECURSIVE behind (owner_id) AS (
    (
        SELECT owner_id FROM batches WHERE retry_codes IS NOT NULL AND id <> ALL ($1::uuid[]) AND owner_id > $3
        ORDER BY owner_id, id LIMIT 1
    )
    UNION ALL
    SELECT following.owner_id FROM behind CROSS JOIN LATERAL (
        SELECT owner_id FROM batches WHERE retry_codes IS NOT NULL AND id <> ALL ($1::uuid[]) AND owner_id > behind.owner_id
        ORDER BY owner_id, id LIMIT 1
    ) AS following
), before (owner_id) AS (
    (
        SELECT owner_id FROM batches WHERE retry_codes IS NOT NULL AND id <> ALL ($1::uuid[]) AND owner_id <= $3
        ORDER BY owner_id, id LIMIT 1
    )
    UNION ALL
    SELECT following.owner_id FROM before CROSS JOIN LATERAL (
        SELECT owner_id FROM batches
        WHERE retry_codes IS NOT NULL AND id <> ALL ($1::uuid[]) AND owner_id > before.owner_id AND owner_id <= $3
        ORDER BY owner_id, id LIMIT 1
    ) AS following
), owners AS (
    SELECT owner_id, 0 AS lap FROM behind UNION ALL SELECT owner_id, 1 FROM before LIMIT $2
)
SELECT id, owner_id FROM owners CROSS JOIN LATERAL (
    SELECT id, row_number() OVER (ORDER BY id) AS turn FROM (
        SELECT id FROM batches
        WHERE retry_codes IS NOT NULL AND owner_id = owners.owner_id AND id <> ALL ($1::uuid[]) ORDER BY id LIMIT $2
    ) AS first
) AS own
ORDER BY turn, lap, owner_id, id LIMIT $2

-- name: lock_failures
-- Locked before the batch, as when results are stored: those transactions count failures and lock the batch last.
SELECT FROM failures WHERE batch_id = $1 ORDER BY code FOR UPDATE

-- name: take_failed
-- Removes the results of up to $4 failed items after the position $2; the error of each is kept, and the newest $5 of
-- each item: a batch can be retried without end.
WITH failed AS (
    SELECT position FROM results
    WHERE batch_id = $1 AND status = 'failed' AND position > $2
        AND (cardinality($3::text[]) = 0 OR error_code = ANY($3))
    ORDER BY position LIMIT $4
), taken AS (
    DELETE FROM results AS r USING failed WHERE r.batch_id = $1 AND r.position = failed.position
    RETURNING r.position, r.error_code, r.error_detail
), kept AS (
    INSERT INTO attempts (batch_id, position, nth, code, detail)
    SELECT
        $1, position,
        1 + coalesce((
            SELECT max(nth) FROM attempts AS a WHERE a.batch_id = $1 AND a.position = taken.position
        ), 0),
        error_code, coalesce(error_detail, '')
    FROM taken
    RETURNING position, nth
), forgotten AS (
    DELETE FROM attempts AS a USING kept
    WHERE a.batch_id = $1 AND a.position = kept.position AND a.nth <= kept.nth - $5
), uncounted AS (
    UPDATE failures AS f SET items = f.items - gone.items
    FROM (SELECT error_code, count(*)::int AS items FROM taken GROUP BY error_code) AS gone
    WHERE f.batch_id = $1 AND f.code = gone.error_code
)
SELECT position FROM taken ORDER BY position

-- name: find_lapsed
-- Up to $2 batches except those in $1, of the next owners after $3, in a circle: the first of each owner, then the second
-- of each, and so on.
WITH RECURSIVE owners (owner_id) AS (
    (
        SELECT owner_id FROM batches WHERE finished_at IS NULL AND expires_at IS NOT NULL
        ORDER BY owner_id, expires_at LIMIT 1
    )
    UNION ALL
    SELECT following.owner_id FROM owners CROSS JOIN LATERAL (
        SELECT owner_id FROM batches
        WHERE finished_at IS NULL AND expires_at IS NOT NULL AND owner_id > owners.owner_id
        ORDER BY owner_id, expires_at LIMIT 1
    ) AS following
)
SELECT id, owner_id FROM owners CROSS JOIN LATERAL (
    SELECT id, row_number() OVER (ORDER BY expires_at, id) AS turn, expires_at FROM (
        SELECT id, expires_at FROM batches
        WHERE finished_at IS NULL AND expires_at < now() AND owner_id = owners.owner_id AND status <> 'cancelling'
            AND id <> ALL ($1::uuid[])
        ORDER BY expires_at LIMIT $2
    ) AS first
) AS own
ORDER BY turn, owner_id <= $3, owner_id, expires_at LIMIT $2
