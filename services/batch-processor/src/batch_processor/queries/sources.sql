-- name: next_copying
-- A batch that waits for items, of the next owner after $1, in a circle: the one that has come least far. None of those
-- in $2; batches of operations that are not in $3 only after $4 seconds.
SELECT id, owner_id FROM batches
WHERE status = 'open' AND source IS NOT NULL AND id <> ALL ($2::uuid[])
    AND (operation = ANY ($3::text[]) OR accepted_at < now() - make_interval(secs => $4))
ORDER BY owner_id <= $1, owner_id, source_after, id LIMIT 1 FOR UPDATE SKIP LOCKED

-- name: copy_items
-- Copies up to $5 items of the batch $2 that ended with the status $3, after the position $4, to the positions of
-- $1 from $6 on; of $7 bytes and the last of them at most.
WITH found AS (
    SELECT r.position, i.custom_id, CASE WHEN r.status = 'succeeded' THEN r.result ELSE i.payload END AS payload
    FROM results AS r JOIN items AS i ON i.batch_id = r.batch_id AND i.position = r.position
    WHERE r.batch_id = $2 AND r.status = $3::item_status AND r.position > $4
    ORDER BY r.position LIMIT $5 + 1
), taken AS (
    SELECT position, custom_id, payload FROM (
        SELECT
            found.*, row_number() OVER own AS nth,
            sum(octet_length(payload)) OVER own - octet_length(payload) AS before
        FROM found WINDOW own AS (ORDER BY position ROWS UNBOUNDED PRECEDING)
    ) AS sized
    WHERE nth <= $5 AND before < $7
), copied AS (
    INSERT INTO items (batch_id, position, custom_id, payload)
    SELECT $1, $6 - 1 + row_number() OVER (ORDER BY position), custom_id, payload FROM taken
    ON CONFLICT DO NOTHING
)
SELECT
    count(*)::int AS items, coalesce(max(position), $4) AS last,
    count(*) = (SELECT count(*) FROM found) AS is_last
FROM taken
