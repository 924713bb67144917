-- name: store_successes
INSERT INTO results (batch_id, position, status, attempts, result)
SELECT $1, position, 'succeeded', $2, result FROM unnest($3::int[], $4::text[]) AS new (position, result)
ON CONFLICT DO NOTHING

-- name: store_many_successes
WITH stored AS (
    INSERT INTO results (batch_id, position, status, attempts, result)
    SELECT batch_id, position, 'succeeded', attempts, result
    FROM unnest($1::uuid[], $2::int[], $3::int[], $4::text[]) AS new (batch_id, position, attempts, result)
    ON CONFLICT DO NOTHING
    RETURNING batch_id
)
SELECT batch_id, count(*)::int AS items FROM stored GROUP BY batch_id

-- name: store_failures
WITH stored AS (
    INSERT INTO results (batch_id, position, status, attempts, error_code, error_detail)
    SELECT batch_id, position, 'failed', attempts, code, detail
    FROM unnest($1::uuid[], $2::int[], $3::int[], $4::text[], $5::text[])
        AS new (batch_id, position, attempts, code, detail)
    ON CONFLICT DO NOTHING
    RETURNING batch_id, error_code
), counted AS (
    INSERT INTO failures AS f (batch_id, code, items)
    SELECT batch_id, error_code, count(*) FROM stored GROUP BY batch_id, error_code
    ORDER BY batch_id, error_code
    ON CONFLICT (batch_id, code) DO UPDATE SET items = f.items + excluded.items
)
SELECT batch_id, count(*)::int AS items FROM stored GROUP BY batch_id

-- name: store_cancelled
INSERT INTO results (batch_id, position, status, attempts)
SELECT $1, position, 'cancelled', attempts FROM unnest($2::int[], $3::int[]) AS new (position, attempts)
ON CONFLICT DO NOTHING

-- name: store_setbacks
INSERT INTO attempts (batch_id, position, nth, code, detail)
SELECT
    batch_id, position,
    1 + coalesce((
        SELECT max(nth) FROM attempts AS a WHERE a.batch_id = new.batch_id AND a.position = new.position
    ), 0),
    code, detail
FROM unnest($1::uuid[], $2::int[], $3::text[], $4::text[]) AS new (batch_id, position, code, detail)
