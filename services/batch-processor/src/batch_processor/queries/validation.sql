-- name: next_validating_oldest
-- Of the next owner after $4, in a circle; the first of each, then the second, and so on. Not those in $1; uploads of
-- operations that are not in $2 only after $3 seconds.
SELECT id, owner_id FROM batches
WHERE status = 'validating' AND id <> ALL ($1::uuid[])
    AND (
        operation = ANY ($2::text[])
        OR coalesce(validating_since, created_at) < now() - make_interval(secs => $3)
    )
ORDER BY row_number() OVER (PARTITION BY owner_id ORDER BY id), owner_id <= $4, owner_id LIMIT 10

-- name: next_validating_smallest
-- The smallest of each owner, then the second of each, and so on; otherwise as above, whatever $4 is.
SELECT id, owner_id FROM batches
WHERE status = 'validating' AND id <> ALL ($1::uuid[])
    AND (
        operation = ANY ($2::text[])
        OR coalesce(validating_since, created_at) < now() - make_interval(secs => $3)
    )
ORDER BY row_number() OVER (PARTITION BY owner_id ORDER BY total, id), total, owner_id <= $4, id LIMIT 10

-- name: lock_validation
SELECT pg_try_advisory_xact_lock(hashtextextended('validation ' || $1::uuid, 0))

-- name: allow_time
SELECT set_config('statement_timeout', $1::text, true), set_config('work_mem', '64MB', true)

-- name: find_duplicates
-- The custom ids that several items of a batch share: ten of them, in the order of their first item, with the lines
-- of the first and the last of these items.
SELECT custom_id, first.line AS first_line, last.line AS last_line, items
FROM (
    SELECT custom_id, min(position) AS first, max(position) AS last, count(*)::int AS items FROM items
    WHERE batch_id = $1 AND custom_id IS NOT NULL
    GROUP BY custom_id HAVING count(*) > 1 ORDER BY min(position) LIMIT 10
) AS shared
CROSS JOIN LATERAL (
    SELECT coalesce(line, position + 1) AS line FROM items WHERE batch_id = $1 AND position = shared.first
) AS first
CROSS JOIN LATERAL (
    SELECT coalesce(line, position + 1) AS line FROM items WHERE batch_id = $1 AND position = shared.last
) AS last
ORDER BY shared.first
