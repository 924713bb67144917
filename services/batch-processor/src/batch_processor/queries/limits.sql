-- name: lock_admission
SELECT pg_try_advisory_xact_lock(5840130411728)

-- name: has_waiting
SELECT EXISTS (SELECT FROM chunks WHERE state = 'waiting')

-- name: find_waiting_owners
-- Up to $2 owners with waiting chunks, after $1.
WITH RECURSIVE found (owner_id) AS (
    (SELECT owner_id FROM chunks WHERE state = 'waiting' AND owner_id > $1 ORDER BY owner_id, gate LIMIT 1)
    UNION ALL
    SELECT following.owner_id FROM found CROSS JOIN LATERAL (
        SELECT owner_id FROM chunks WHERE state = 'waiting' AND owner_id > found.owner_id
        ORDER BY owner_id, gate LIMIT 1
    ) AS following
)
SELECT owner_id FROM found LIMIT $2

-- name: find_waiting
-- Of each owner in $1 up to $3 gates with waiting chunks, after that in $2, and the first chunks of each, $4 over all
-- gates but eight of each at least: by priority, then by age. A chunk of a batch that is paused or cancelled has no
-- operation here. For chunks that ran before, only the items without a result are listed.
WITH gates AS (
    SELECT own.gate, o.owner_id FROM unnest($1::text[], $2::text[]) AS o (owner_id, after)
    CROSS JOIN LATERAL (
        WITH RECURSIVE found (gate) AS (
            (
                SELECT gate FROM chunks WHERE state = 'waiting' AND owner_id = o.owner_id AND gate > o.after
                ORDER BY gate LIMIT 1
            )
            UNION ALL
            SELECT following.gate FROM found CROSS JOIN LATERAL (
                SELECT gate FROM chunks WHERE state = 'waiting' AND owner_id = o.owner_id AND gate > found.gate
                ORDER BY gate LIMIT 1
            ) AS following
        )
        SELECT gate FROM found LIMIT $3 + 1
    ) AS own
), pairs AS MATERIALIZED (
    SELECT owner_id, gate, nth = $3 AND has_next AS has_more_behind FROM (
        SELECT
            owner_id, gate, row_number() OVER own AS nth, lead(gate) OVER own IS NOT NULL AS has_next
        FROM gates WINDOW own AS (PARTITION BY owner_id ORDER BY gate)
    ) AS numbered
    WHERE nth <= $3
)
SELECT
    head.*, pairs.has_more_behind, b.operation, b.options::text AS options,
    CASE WHEN head.remaining < coalesce(cardinality(head.positions), head.last_position - head.first_position + 1)
        THEN ARRAY(
            SELECT position
            FROM unnest(coalesce(
                head.positions, ARRAY(SELECT generate_series(head.first_position, head.last_position))
            )) AS listed (position)
            WHERE NOT EXISTS (
                SELECT FROM results AS r WHERE r.batch_id = head.batch_id AND r.position = listed.position
            )
            ORDER BY position
        )
        ELSE head.positions
    END AS left_positions
FROM pairs CROSS JOIN LATERAL (
    SELECT
        gate, owner_id, batch_id, number, priority, due_at, attempt, first_position, last_position, positions,
        remaining, lost, suspect
    FROM chunks WHERE state = 'waiting' AND gate = pairs.gate AND owner_id = pairs.owner_id
    ORDER BY priority DESC, due_at, batch_id, number
    LIMIT greatest(8, $4::bigint / (SELECT count(*) FROM pairs))
) AS head
LEFT JOIN batches AS b ON b.id = head.batch_id AND b.status IN ('queued', 'running')
ORDER BY head.owner_id, head.gate, head.priority DESC, head.due_at, head.batch_id, head.number

-- name: measure_keys
-- By key the items that were let through and are not done, those of them that no worker has claimed yet, and the
-- charges of the keys $2 within the last $3 seconds; and the stamp before which no such chunk exists, now or later.
-- None of them has a stamp before $1. One statement, so that a chunk that is claimed meanwhile counts once.
WITH passed AS MATERIALIZED (
    SELECT keys, state, remaining, stamp FROM chunks
    WHERE gate IS NOT NULL AND state IN ('ready', 'running') AND stamp >= $1
), counted AS (
    SELECT key, sum(in_flight)::int AS in_flight, sum(unclaimed)::int AS unclaimed, sum(charged)::int AS charged
    FROM (
        SELECT key, remaining AS in_flight, CASE state WHEN 'ready' THEN remaining ELSE 0 END AS unclaimed, 0 AS charged
        FROM passed CROSS JOIN unnest(passed.keys) AS key
        UNION ALL
        SELECT charges.key, 0, 0, charges.items
        FROM unnest($2::text[], $3::float8[]) AS within (key, window_s)
        JOIN charges ON charges.key = within.key AND charges.at > now() - make_interval(secs => within.window_s)
    ) AS parts
    GROUP BY key
)
SELECT counted.*, bound.passed_from FROM (
    SELECT least((SELECT min(stamp) FROM passed), pg_snapshot_xmin(pg_current_snapshot())::text::bigint) AS passed_from
) AS bound LEFT JOIN counted ON true

-- name: lock_waiting
SELECT batch_id, number FROM chunks
WHERE state = 'waiting'
    AND (batch_id, number) IN (SELECT * FROM unnest($1::uuid[], $2::int[]))
ORDER BY batch_id, number FOR UPDATE SKIP LOCKED

-- name: let_through
-- Whole chunks become ready; their wait for a turn begins now.
UPDATE chunks AS c SET
    state = 'ready', due_at = now(),
    keys = ARRAY(SELECT jsonb_array_elements_text(new.keys)),
    slots_s = ARRAY(SELECT value::float8 FROM jsonb_array_elements_text(new.slots_s))
FROM jsonb_to_recordset($1::jsonb) AS new (batch_id uuid, number int, keys jsonb, slots_s jsonb)
WHERE c.batch_id = new.batch_id AND c.number = new.number

-- name: shrink_waiting
-- A worker that was taken for dead while it had the whole chunk has it no longer: what was cut off may run elsewhere.
UPDATE chunks AS c SET
    run = c.run + (c.run > 0)::int,
    first_position = new.first_position, last_position = new.last_position, remaining = new.items,
    positions = CASE jsonb_typeof(new.positions)
        WHEN 'array' THEN ARRAY(SELECT value::int FROM jsonb_array_elements_text(new.positions))
    END
FROM jsonb_to_recordset($1::jsonb) AS new (
    batch_id uuid, number int, first_position int, last_position int, items int, positions jsonb
)
WHERE c.batch_id = new.batch_id AND c.number = new.number

-- name: remove_emptied
DELETE FROM chunks AS c USING unnest($1::uuid[], $2::int[]) AS gone (batch_id, number)
WHERE c.batch_id = gone.batch_id AND c.number = gone.number

-- name: number_chunks
-- Reserves numbers for $2 more chunks of each batch; returns the first of each.
UPDATE batches AS b SET chunk_count = b.chunk_count + more.chunks
FROM (
    SELECT locked.id, wanted.chunks
    FROM unnest($1::uuid[], $2::int[]) AS wanted (id, chunks)
    JOIN (SELECT id FROM batches WHERE id = ANY($1::uuid[]) ORDER BY id FOR UPDATE) AS locked USING (id)
) AS more
WHERE b.id = more.id
RETURNING b.id, b.chunk_count - more.chunks AS first

-- name: add_pieces
-- Adds pieces of waiting chunks: like the chunk named in $1, but ready, with the given items and keys.
INSERT INTO chunks (
    batch_id, number, state, attempt, first_position, last_position, positions, remaining, due_at, owner_id,
    priority, lost, suspect, gate, keys, slots_s
)
SELECT
    whole.batch_id, new.number, 'ready', whole.attempt, new.first_position, new.last_position,
    CASE jsonb_typeof(new.positions)
        WHEN 'array' THEN ARRAY(SELECT value::int FROM jsonb_array_elements_text(new.positions))
    END,
    new.items, now(), whole.owner_id, whole.priority, whole.lost, whole.suspect, whole.gate,
    ARRAY(SELECT jsonb_array_elements_text(new.keys)),
    ARRAY(SELECT value::float8 FROM jsonb_array_elements_text(new.slots_s))
FROM jsonb_to_recordset($1::jsonb) AS new (
    batch_id uuid, whole int, number int, first_position int, last_position int, items int, positions jsonb,
    keys jsonb, slots_s jsonb
)
JOIN chunks AS whole ON whole.batch_id = new.batch_id AND whole.number = new.whole

-- name: gate_chunks
-- Makes chunks wait that were created before their operation had limits.
UPDATE chunks AS c SET
    gate = 'operation:' || found.operation, state = CASE c.state WHEN 'ready' THEN 'waiting' ELSE c.state END
FROM (
    SELECT c.batch_id, c.number, b.operation FROM chunks AS c JOIN batches AS b ON b.id = c.batch_id
    WHERE b.operation = ANY($1::text[]) AND c.gate IS NULL AND c.owner_id IS NOT NULL
        AND c.state IN ('delayed', 'ready', 'held')
    LIMIT $2 FOR UPDATE OF c SKIP LOCKED
) AS found
WHERE c.batch_id = found.batch_id AND c.number = found.number

-- name: count_waiting
SELECT count(*) FROM (SELECT FROM chunks WHERE state = 'waiting' LIMIT $1) AS head

-- name: remove_charges
DELETE FROM charges WHERE at < now() - interval '2 days'
