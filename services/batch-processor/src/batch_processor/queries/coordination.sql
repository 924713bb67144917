-- name: promote_chunks
UPDATE chunks AS c SET state = CASE WHEN c.gate IS NULL THEN 'ready' ELSE 'waiting' END
FROM (
    SELECT batch_id, number FROM chunks WHERE state = 'delayed' AND due_at <= now() AND due_at >= $1
    ORDER BY due_at LIMIT 1000 FOR UPDATE SKIP LOCKED
) AS due
WHERE c.batch_id = due.batch_id AND c.number = due.number

-- name: next_due_in_s
SELECT extract(epoch FROM min(due_at) - now())::float8 FROM chunks WHERE state = 'delayed' AND due_at >= $1

-- name: look_for_work
-- Whether the chunks of a batch must be held, released, created again or cancelled (`orders`), and whether there may
-- be an upload that was open for longer than $1 seconds, or a batch past its deadline (`expired`); whether there are
-- ready chunks with stamps from $2 on, and chunks due since $3 or within $4 seconds. The planner knows only from
-- statistics that `retry_codes` is rarely set: the ORDER BY makes it use the index of retried batches.
SELECT
    EXISTS (SELECT FROM batches WHERE status = 'cancelling')
    OR (SELECT true FROM batches WHERE retry_codes IS NOT NULL ORDER BY id LIMIT 1) IS NOT NULL
    OR EXISTS (SELECT FROM batches WHERE status = 'paused')
    OR EXISTS (SELECT FROM chunks WHERE state = 'held')
    OR EXISTS (SELECT FROM pauses) AS orders,
    EXISTS (SELECT FROM batches WHERE status = 'open' AND created_at < now() - make_interval(secs => $1))
    OR EXISTS (SELECT FROM batches WHERE finished_at IS NULL AND expires_at < now()) AS expired,
    EXISTS (SELECT FROM chunks WHERE state = 'ready' AND stamp >= $2) AS ready,
    EXISTS (
        SELECT FROM chunks
        WHERE state = 'delayed' AND due_at >= $3 AND due_at < now() + make_interval(secs => $4)
    ) AS due,
    EXISTS (SELECT FROM chunks WHERE state = 'waiting') AS limited,
    EXISTS (SELECT FROM batches WHERE status = 'validating') AS uploads,
    EXISTS (SELECT FROM batches WHERE status = 'open' AND source IS NOT NULL) AS copies,
    EXISTS (SELECT FROM schedules WHERE fire_at <= now())
    OR EXISTS (SELECT FROM schedule_runs WHERE status IN ('fired', 'waiting')) AS schedules

-- name: adopt_chunks
UPDATE chunks AS c SET owner_id = b.owner_id, priority = b.priority
FROM batches AS b WHERE c.owner_id IS NULL AND b.id = c.batch_id

-- name: restamp_chunks
-- Chunks restored from a backup of another server, whose transactions had higher numbers: without this they would
-- follow all new chunks.
UPDATE chunks SET stamp = pg_current_xact_id()::text::bigint
WHERE state = 'ready' AND stamp > pg_current_xact_id()::text::bigint

-- name: sweep_chunks
-- `dispatched` is a state of an earlier release. Chunks under limits wait for them: their items were charged when they
-- began, and are charged again when they begin again. A worker that died between the last result of a batch and the
-- end of its chunk leaves a useless chunk, which is deleted: it would keep a place in its owner's lane for ever.
WITH stale AS (
    SELECT batch_id, number FROM chunks
    WHERE state IN ('dispatched', 'running') AND leased_until < now() AND stamp >= $1 ORDER BY stamp
    LIMIT 1000 FOR UPDATE SKIP LOCKED
), judged AS MATERIALIZED (
    SELECT stale.*, b.id IS NULL OR b.finished_at IS NOT NULL AS is_over
    FROM stale LEFT JOIN batches AS b ON b.id = stale.batch_id
), gone AS (
    DELETE FROM chunks AS c USING judged
    WHERE judged.is_over AND c.batch_id = judged.batch_id AND c.number = judged.number
)
UPDATE chunks AS c SET
    state = CASE WHEN c.gate IS NULL THEN 'ready' ELSE 'waiting' END,
    lost = least(1000, c.lost + (c.state = 'running')::int)
FROM judged
WHERE NOT judged.is_over AND c.batch_id = judged.batch_id AND c.number = judged.number

-- name: measure_chunks
-- Up to $3 ready chunks with stamps from $1 on, and the running ones from $2 on; and the stamps before which there
-- are none of either, now or later.
SELECT
    ready.chunks AS ready, coalesce(extract(epoch FROM now() - ready.due_at), 0)::float8 AS oldest_ready_s,
    running.chunks AS in_flight, running.stamp IS NOT NULL AS is_leased,
    least(ready.stamp, xmin) AS ready_from, least(running.stamp, xmin) AS in_flight_from
FROM
    (SELECT pg_snapshot_xmin(pg_current_snapshot())::text::bigint AS xmin) AS snapshot,
    (
        SELECT count(*) AS chunks, min(due_at) AS due_at, min(stamp) AS stamp
        FROM (
            SELECT due_at, stamp FROM chunks WHERE state = 'ready' AND stamp >= $1 ORDER BY stamp LIMIT $3
        ) AS head
    ) AS ready,
    (
        SELECT count(*) FILTER (WHERE state = 'running') AS chunks, min(stamp) AS stamp
        FROM chunks WHERE state IN ('dispatched', 'running') AND stamp >= $2
    ) AS running

-- name: measure_validation
SELECT
    count(*) AS uploads,
    greatest(0, coalesce(extract(epoch FROM now() - min(validating_since)), 0))::float8 AS oldest_s
FROM batches WHERE status = 'validating'

-- name: count_overdue
-- Batches whose first item should have begun $1 seconds after it was due, uploads whose custom ids should have
-- been compared within $2 seconds, uploads to which nothing was appended for $3 seconds, batches past their deadline,
-- cancelled batches whose items have not ended within $4 seconds, and running batches without a chunk. Waits for limits
-- or pauses do not count before that deadline.
SELECT
    (
        SELECT count(*) FROM batches
        WHERE status = 'queued' AND greatest(accepted_at, not_before) < now() - make_interval(secs => $1)
            AND NOT EXISTS (SELECT FROM chunks WHERE batch_id = batches.id AND state IN ('waiting', 'held'))
    ) + (
        SELECT count(*) FROM batches
        WHERE status = 'validating' AND validating_since < now() - make_interval(secs => $2)
    ) + (
        SELECT count(*) FROM batches
        WHERE status = 'open' AND created_at < now() - make_interval(secs => $3)
            AND (appended_at IS NULL OR appended_at < now() - make_interval(secs => $3))
            AND (expires_at IS NULL OR expires_at >= now())
    ) + (
        SELECT count(*) FROM batches
        WHERE finished_at IS NULL AND expires_at < now() AND status <> 'cancelling'
    ) + (
        SELECT count(*) FROM batches
        WHERE status = 'cancelling' AND cancelling_since < now() - make_interval(secs => $4)
            AND EXISTS (SELECT FROM chunks WHERE batch_id = batches.id)
    ) + (
        SELECT count(*) FROM (
            SELECT FROM batches AS b
            WHERE b.status IN ('running', 'cancelling') AND NOT EXISTS (SELECT FROM chunks WHERE batch_id = b.id)
            LIMIT 1000
        ) AS stuck
    )

-- name: next_cancelling
-- Up to $2 batches except those in $1, of the next owners after $3, in a circle: the first of each owner, then the second
-- of each, and so on. `next_retrying` does the same by its own index: through a view of both, the planner reads and sorts
-- all of them.
WITH RECURSIVE behind (owner_id) AS (
    (
        SELECT owner_id FROM batches WHERE status = 'cancelling' AND id <> ALL ($1::uuid[]) AND owner_id > $3
        ORDER BY owner_id, id LIMIT 1
    )
    UNION ALL
    SELECT following.owner_id FROM behind CROSS JOIN LATERAL (
        SELECT owner_id FROM batches WHERE status = 'cancelling' AND id <> ALL ($1::uuid[]) AND owner_id > behind.owner_id
        ORDER BY owner_id, id LIMIT 1
    ) AS following
), before (owner_id) AS (
    (
        SELECT owner_id FROM batches WHERE status = 'cancelling' AND id <> ALL ($1::uuid[]) AND owner_id <= $3
        ORDER BY owner_id, id LIMIT 1
    )
    UNION ALL
    SELECT following.owner_id FROM before CROSS JOIN LATERAL (
        SELECT owner_id FROM batches
        WHERE status = 'cancelling' AND id <> ALL ($1::uuid[]) AND owner_id > before.owner_id AND owner_id <= $3
        ORDER BY owner_id, id LIMIT 1
    ) AS following
), owners AS (
    SELECT owner_id, 0 AS lap FROM behind UNION ALL SELECT owner_id, 1 FROM before LIMIT $2
)
SELECT id, owner_id FROM owners CROSS JOIN LATERAL (
    SELECT id, row_number() OVER (ORDER BY id) AS turn FROM (
        SELECT id FROM batches
        WHERE status = 'cancelling' AND owner_id = owners.owner_id AND id <> ALL ($1::uuid[]) ORDER BY id LIMIT $2
    ) AS first
) AS own
ORDER BY turn, lap, owner_id, id LIMIT $2

-- name: take_cancelled_chunks
-- Also those at work whose lease ends within $3 seconds: their worker gave no sign of life for a while. One that lives
-- loses its chunk with that, and stores nothing more of it. Whether an item of it had begun is not known: the attempts
-- are those that had ended. The chunks have about $2 items together: those of a batch under limits are small.
DELETE FROM chunks AS c USING (
    SELECT batch_id, number, sum(remaining) OVER (ORDER BY number ROWS UNBOUNDED PRECEDING) - remaining AS before
    FROM (
        SELECT batch_id, number, remaining FROM chunks
        WHERE batch_id = $1 AND (state <> 'running' OR leased_until < now() + make_interval(secs => $3))
        ORDER BY number LIMIT 500 FOR UPDATE SKIP LOCKED
    ) AS free
) AS old
WHERE c.batch_id = old.batch_id AND c.number = old.number AND old.before < $2
RETURNING c.first_position, c.last_position, c.positions, c.attempt - 1

-- name: cancel_ranges
INSERT INTO results (batch_id, position, status, attempts)
SELECT $1, position, 'cancelled', gap.attempts
FROM unnest($2::int[], $3::int[], $4::int[]) AS gap (low, high, attempts)
CROSS JOIN LATERAL generate_series(gap.low, gap.high) AS position
ON CONFLICT DO NOTHING

-- name: lock_removal
SELECT pg_try_advisory_xact_lock(5840130411727)

-- name: find_unused
SELECT id FROM batches WHERE status IN ('abandoned', 'expired') AND NOT purged AND chunk_count = 0
ORDER BY id LIMIT $1

-- name: list_removals
SELECT batch_id, extract(epoch FROM now() - since)::float8 AS since_s FROM removals ORDER BY since LIMIT $1

-- name: begin_removals
-- A batch that somebody holds may be retried just now, and is looked at again in the next step. What is left of a batch
-- is noted, and follows in steps.
WITH outdated AS (
    SELECT id FROM batches
    WHERE finished_at IS NOT NULL AND finished_at < now() - make_interval(days => $2)
    ORDER BY finished_at LIMIT $1 FOR UPDATE SKIP LOCKED
), gone AS (
    DELETE FROM batches USING outdated WHERE batches.id = outdated.id
    RETURNING batches.id, batches.kind, batches.finished_at
), left_over AS (
    INSERT INTO removals SELECT id FROM gone WHERE kind = 'batch' ON CONFLICT DO NOTHING
)
SELECT
    count(*) FILTER (WHERE kind = 'batch') AS batches,
    coalesce(array_agg(id) FILTER (WHERE kind = 'task'), '{}') AS tasks,
    coalesce(extract(epoch FROM now() - make_interval(days => $2) - min(finished_at)), 0)::float8 AS late_s
FROM gone

-- name: remove_rows_of_tasks
-- At once, because the id of a task may come again: it is made of the task's unique key.
WITH tasks AS (
    SELECT unnest($1::uuid[]) AS id
), chunks_gone AS (
    DELETE FROM chunks USING tasks WHERE batch_id = id
), results_gone AS (
    DELETE FROM results USING tasks WHERE batch_id = id
), attempts_gone AS (
    DELETE FROM attempts USING tasks WHERE batch_id = id
), failures_gone AS (
    DELETE FROM failures USING tasks WHERE batch_id = id
)
DELETE FROM items USING tasks WHERE batch_id = id

-- name: mark_purged
UPDATE batches SET purged = true WHERE id = ANY($1::uuid[])

-- name: remove_items
DELETE FROM items WHERE ctid = ANY(ARRAY(SELECT ctid FROM items WHERE batch_id = ANY($1::uuid[]) LIMIT $2))

-- name: remove_results
DELETE FROM results
WHERE ctid = ANY(ARRAY(SELECT ctid FROM results WHERE batch_id = ANY($1::uuid[]) LIMIT $2))

-- name: remove_attempts
DELETE FROM attempts
WHERE ctid = ANY(ARRAY(SELECT ctid FROM attempts WHERE batch_id = ANY($1::uuid[]) LIMIT $2))

-- name: remove_failures
DELETE FROM failures
WHERE ctid = ANY(ARRAY(SELECT ctid FROM failures WHERE batch_id = ANY($1::uuid[]) LIMIT $2))

-- name: end_removals
DELETE FROM removals WHERE batch_id = ANY($1::uuid[])

-- name: find_expired_uploads
-- Up to $3 batches that were open for $1 seconds, and to which nothing was appended since, except those in $2; of the
-- next owners after $4, in a circle: the first of each owner, then the second of each, and so on.
WITH RECURSIVE owners (owner_id) AS (
    (SELECT owner_id FROM batches WHERE status = 'open' ORDER BY owner_id, created_at LIMIT 1)
    UNION ALL
    SELECT following.owner_id FROM owners CROSS JOIN LATERAL (
        SELECT owner_id FROM batches WHERE status = 'open' AND owner_id > owners.owner_id
        ORDER BY owner_id, created_at LIMIT 1
    ) AS following
)
SELECT id, owner_id FROM owners CROSS JOIN LATERAL (
    SELECT id, row_number() OVER (ORDER BY created_at, id) AS turn, created_at FROM (
        SELECT id, created_at FROM batches
        WHERE status = 'open' AND owner_id = owners.owner_id AND created_at < now() - make_interval(secs => $1)
            AND (appended_at IS NULL OR appended_at < now() - make_interval(secs => $1))
            AND id <> ALL ($2::uuid[])
        ORDER BY created_at LIMIT $3
    ) AS first
) AS own
ORDER BY turn, owner_id <= $4, owner_id, created_at LIMIT $3
