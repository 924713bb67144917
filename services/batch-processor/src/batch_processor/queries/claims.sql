-- name: claim_chunks
-- $1 owners, $2 lanes, $3, $4 and $5 where they begin, $6 chunks to claim, $7 of them for any owner: the others are
-- for owners without running chunks; no running chunk has a stamp before $9. The number of an owner's running chunks
-- decides on its turn; priority and age decide among its own chunks. Tasks of an operation in $10 bring along up to
-- $11 tasks that come next in their lane, of at most $13 bytes each: they run together in one slot. No chunk of the
-- operations $12 is claimed.
-- The commit need not wait for the disk: if a crash undoes a claim, the chunk only runs again. Items under a key with
-- a rate are charged here, when they begin.
WITH busy AS MATERIALIZED (
    SELECT owner_id, count(*)::int AS chunks FROM chunks
    WHERE state = 'running' AND stamp >= $9 AND owner_id = ANY($1::text[]) GROUP BY owner_id
), waiting AS (
    SELECT
        o.owner_id, o.lane, c.stamp, c.batch_id, c.number, c.due_at,
        row_number() OVER (PARTITION BY o.owner_id ORDER BY o.lane, c.stamp, c.batch_id, c.number) AS nth
    FROM unnest($1::text[], $2::smallint[], $3::bigint[], $4::uuid[], $5::int[])
        AS o (owner_id, lane, stamp, batch_id, number)
    CROSS JOIN LATERAL (
        SELECT ready.batch_id, ready.number, ready.due_at, ready.stamp FROM chunks AS ready
        WHERE ready.state = 'ready' AND ready.owner_id = o.owner_id AND lane_of(ready.priority, ready.run) = o.lane
            AND (ready.stamp, ready.batch_id, ready.number) >= (o.stamp, o.batch_id, o.number)
        ORDER BY ready.stamp, ready.batch_id, ready.number LIMIT $6
    ) AS c
), next AS (
    -- The first chunk of each owner without running ones is among them. Those of paused or cancelled batches take no
    -- place from others.
    SELECT owner_id, lane, stamp, batch_id, number, due_at, coalesce(busy.chunks, 0) + nth AS turn
    FROM waiting LEFT JOIN busy USING (owner_id)
    ORDER BY turn, due_at, batch_id, number LIMIT $6 + cardinality($1)
), chosen AS (
    SELECT owner_id, lane, stamp, batch_id, number, turn FROM (
        SELECT next.*, row_number() OVER (ORDER BY turn, next.due_at, next.batch_id, next.number) AS place
        FROM next JOIN batches AS b ON b.id = next.batch_id
        WHERE b.status IN ('queued', 'running') AND b.operation <> ALL($12::text[])
    ) AS ranked
    -- The first condition alone ends the search: batches of chunks beyond it are not looked up.
    WHERE place <= $6 AND (place <= $7 OR turn = 1)
), hosts AS MATERIALIZED (
    -- The last claimed chunk of each lane, if it is such a task.
    SELECT last.*, b.operation FROM (
        SELECT DISTINCT ON (owner_id, lane) owner_id, lane, stamp, batch_id, number FROM chosen
        WHERE cardinality($10::text[]) > 0
        ORDER BY owner_id, lane, stamp DESC, batch_id DESC, number DESC
    ) AS last
    JOIN batches AS b ON b.id = last.batch_id AND b.kind = 'task' AND b.operation = ANY($10::text[])
), riders AS MATERIALIZED (
    SELECT c.batch_id, c.number FROM hosts CROSS JOIN LATERAL (
        SELECT next.batch_id, next.number, next.lost, next.suspect FROM chunks AS next
        WHERE next.state = 'ready' AND next.owner_id = hosts.owner_id
            AND lane_of(next.priority, next.run) = hosts.lane
            AND (next.stamp, next.batch_id, next.number) > (hosts.stamp, hosts.batch_id, hosts.number)
        ORDER BY next.stamp, next.batch_id, next.number LIMIT $11
    ) AS c
    JOIN batches AS b ON b.id = c.batch_id AND b.kind = 'task' AND b.operation = hosts.operation
    WHERE c.lost = 0 AND NOT c.suspect
        AND (SELECT octet_length(payload) FROM items WHERE batch_id = c.batch_id AND position = 0) <= $13
), taken AS MATERIALIZED (
    SELECT batch_id, number, turn, false AS rides FROM chosen
    UNION ALL
    SELECT batch_id, number, NULL, true FROM riders
), locked AS MATERIALIZED (
    -- Each is looked up alone, by its key (OFFSET 0): statistics often say that no chunk is ready, as a minute ago.
    SELECT c.batch_id, c.number, taken.turn, taken.rides FROM taken CROSS JOIN LATERAL (
        SELECT batch_id, number, state FROM chunks WHERE batch_id = taken.batch_id AND number = taken.number
        OFFSET 0 FOR UPDATE SKIP LOCKED
    ) AS c
    WHERE c.state = 'ready'
), claimed AS (
    UPDATE chunks AS c SET
        state = 'running', run = c.run + 1, leased_until = now() + make_interval(secs => $8),
        stamp = pg_current_xact_id()::text::bigint
    FROM locked
    JOIN batches AS b ON b.id = locked.batch_id AND b.status IN ('queued', 'running') AND b.operation <> ALL($12::text[])
    WHERE c.batch_id = locked.batch_id AND c.number = locked.number
    RETURNING
        c.batch_id, c.number, c.run, c.lost, c.suspect, c.attempt, c.first_position, c.last_position, c.positions,
        c.due_at, b.owner_id, b.operation, b.status, b.accepted_at, b.traceparent, b.request_id,
        coalesce(locked.turn = 1, false) AS is_first, locked.rides, now() AS claimed_at,
        set_config('synchronous_commit', 'off', true) AS commit, c.gate, c.keys, c.slots_s, c.remaining
), charged AS (
    INSERT INTO charges (key, at, items)
    SELECT charge.key, to_timestamp(floor(extract(epoch FROM now()) / charge.slot_s) * charge.slot_s), sum(remaining)
    FROM claimed CROSS JOIN unnest(claimed.keys, claimed.slots_s) AS charge (key, slot_s)
    WHERE claimed.gate IS NOT NULL AND charge.slot_s IS NOT NULL GROUP BY 1, 2 ORDER BY 1, 2
    ON CONFLICT (key, at) DO UPDATE SET items = charges.items + excluded.items
)
SELECT * FROM claimed

-- name: load_items
-- A row for each chunk, in the order of the arguments, with its items that have no result, in input order, as far as
-- they fit into $5 bytes. No item of a chunk that was never claimed before ($4) has a result. The items reach the
-- aggregates in order. A row for each of them would take the client five times as long.
SELECT i.positions, i.payloads
FROM unnest($1::uuid[], $2::int[], $3::int[], $4::bool[]) WITH ORDINALITY AS c (batch_id, low, high, is_new, nth)
CROSS JOIN LATERAL (
    SELECT
        coalesce(array_agg(position), '{}') AS positions, coalesce(array_agg(payload), '{}') AS payloads
    FROM (
        SELECT
            position, payload,
            sum(octet_length(payload)) OVER (ORDER BY position ROWS UNBOUNDED PRECEDING)
                - octet_length(payload) AS before
        FROM items
        WHERE batch_id = c.batch_id AND position BETWEEN c.low AND c.high
            AND (c.is_new OR NOT EXISTS (
                SELECT FROM results AS r
                WHERE r.batch_id = c.batch_id AND r.position = items.position
                    AND r.position BETWEEN c.low AND c.high
            ))
        ORDER BY position
    ) AS sized
    WHERE before < $5
) AS i
ORDER BY c.nth

-- name: count_left
SELECT count(*)::int FROM items AS i
WHERE i.batch_id = $1 AND i.position > $2 AND i.position <= $3
    AND NOT EXISTS (
        SELECT FROM results AS r
        WHERE r.batch_id = $1 AND r.position = i.position AND r.position > $2 AND r.position <= $3
    )

-- name: load_listed
-- The items that have no result, in input order; those that do not fit into $3 bytes without their payload.
SELECT position, CASE WHEN before < $3 THEN payload END AS payload
FROM (
    SELECT
        i.position, i.payload,
        sum(octet_length(i.payload)) OVER (ORDER BY i.position ROWS UNBOUNDED PRECEDING)
            - octet_length(i.payload) AS before
    FROM items AS i
    WHERE i.batch_id = $1 AND i.position = ANY($2::int[])
        AND NOT EXISTS (SELECT FROM results AS r WHERE r.batch_id = $1 AND r.position = i.position)
) AS sized
ORDER BY position

-- name: finish_chunks
DELETE FROM chunks AS c USING unnest($1::uuid[], $2::int[], $3::int[]) AS old (batch_id, number, run)
WHERE c.batch_id = old.batch_id AND c.number = old.number AND c.run = old.run
RETURNING c.batch_id, c.number

-- name: renew_chunks
-- `delayed` is a chunk that this worker cannot run: it becomes ready again after some seconds, for another worker.
-- A chunk under limits that would be ready again waits for them, as each start of an item is charged.
UPDATE chunks AS c SET
    state = CASE WHEN new.state = 'ready' AND c.gate IS NOT NULL THEN 'waiting' ELSE new.state END,
    remaining = c.remaining - new.done, leased_until = now() + make_interval(secs => $6),
    stamp = pg_current_xact_id()::text::bigint,
    due_at = CASE new.state WHEN 'delayed' THEN now() + interval '5 s' ELSE c.due_at END
FROM unnest($1::uuid[], $2::int[], $3::int[], $4::text[], $5::int[]) AS new (batch_id, number, run, state, done)
JOIN batches AS b ON b.id = new.batch_id
WHERE c.batch_id = new.batch_id AND c.number = new.number AND c.run = new.run
RETURNING c.batch_id, c.number, b.status

-- name: shrink_chunk
UPDATE chunks SET
    positions = $4::int[], first_position = $4[1], last_position = $4[cardinality($4)], remaining = cardinality($4)
WHERE batch_id = $1 AND number = $2 AND run = $3

-- name: return_chunks
UPDATE chunks AS c SET
    state = CASE WHEN c.gate IS NULL THEN 'ready' ELSE 'waiting' END, lost = least(1000, c.lost + $4)
FROM unnest($1::uuid[], $2::int[], $3::int[]) AS old (batch_id, number, run)
WHERE c.batch_id = old.batch_id AND c.number = old.number AND c.run = old.run AND c.state = 'running'

-- name: create_chunk
INSERT INTO chunks (
    batch_id, number, state, attempt, first_position, last_position, positions, remaining, due_at, owner_id,
    priority, lost, suspect, gate, run
)
SELECT
    id, $2, CASE WHEN $8::float8 > 0 THEN 'delayed' WHEN $11::text IS NOT NULL THEN 'waiting' ELSE 'ready' END,
    $3, $4, $5, $6, $7, now() + make_interval(secs => $8), owner_id, priority, $9, $10, $11, $12
FROM batches WHERE id = $1
