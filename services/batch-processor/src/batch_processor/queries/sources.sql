-- name: next_copying
-- A batch that waits for items, of the next owner after $1, in a circle: the one that has come least far. None of those
-- in $2; batches of operations that are not in $3 only after $4 seconds.
SELECT id, owner_id FROM batches
WHERE status = 'open' AND source IS NOT NULL AND id <> ALL ($2::uuid[])
    AND (operation = ANY ($3::text[]) OR accepted_at < now() - make_interval(secs => $4))
ORDER BY owner_id <= $1, owner_id, source_after, id LIMIT 1 FOR UPDATE SKIP LOCKED

-- name: list_ended_positions
-- Up to $4 items of the batch $1 that ended with the status $2, after the position $3.
SELECT position FROM results WHERE batch_id = $1 AND status = $2::item_status AND position > $3
ORDER BY position LIMIT $4

-- name: list_positions
-- Up to $3 items of the batch $1 after the position $2.
SELECT position FROM items WHERE batch_id = $1 AND position > $2 ORDER BY position LIMIT $3

-- name: copy_items
-- Copies the items $3 of the batch $2 to the positions of $1 from $4 on, in their order; of $5 bytes and the last of them
-- at most. Each is looked up alone, so that no statistics lead to a plan that reads more.
WITH found AS (
    SELECT source.position, i.custom_id, coalesce(r.result, i.payload) AS payload
    FROM unnest($3::int[]) AS source (position)
    CROSS JOIN LATERAL (
        SELECT custom_id, payload FROM items WHERE batch_id = $2 AND position = source.position OFFSET 0
    ) AS i
    LEFT JOIN LATERAL (
        SELECT result FROM results
        WHERE batch_id = $2 AND position = source.position AND status = 'succeeded' OFFSET 0
    ) AS r ON true
), taken AS (
    SELECT position, custom_id, payload FROM (
        SELECT found.*, sum(octet_length(payload)) OVER own - octet_length(payload) AS before
        FROM found WINDOW own AS (ORDER BY position ROWS UNBOUNDED PRECEDING)
    ) AS sized
    WHERE before < $5
), copied AS (
    INSERT INTO items (batch_id, position, custom_id, payload)
    SELECT $1, $4 - 1 + row_number() OVER (ORDER BY position), custom_id, payload FROM taken
    ON CONFLICT DO NOTHING
)
SELECT count(*)::int AS items, max(position) AS last, count(*) < (SELECT count(*) FROM found) AS is_cut FROM taken
