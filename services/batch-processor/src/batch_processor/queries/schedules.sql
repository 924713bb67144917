-- name: lock_schedule_owner
-- The owner's row, locked until the transaction ends: schedules of one owner are created one after the other.
INSERT INTO schedule_owners (owner_id) VALUES ($1)
ON CONFLICT (owner_id) DO UPDATE SET owner_id = excluded.owner_id

-- name: find_schedule_of_request
SELECT * FROM schedules WHERE owner_id = $1 AND request_key = $2

-- name: count_schedules
SELECT count(*) FROM schedules WHERE owner_id = $1

-- name: insert_schedule
INSERT INTO schedules (
    id, owner_id, made_by, request_key, name, cron, time_zone, overlap, missed, catch_up_window_s, jitter_s,
    kind, operation, template, due_at, fire_at, scopes
) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17)
RETURNING *

-- name: get_schedule
SELECT * FROM schedules WHERE id = $1 AND owner_id = $2

-- name: lock_schedule
SELECT * FROM schedules WHERE id = $1 AND owner_id = $2 FOR UPDATE

-- name: list_schedules
-- A page of an owner's schedules, newest first; a filter that is NULL matches everything.
SELECT * FROM schedules
WHERE owner_id = $1 AND ($2::uuid IS NULL OR id < $2)
    AND ($3::text[] IS NULL OR CASE WHEN is_paused THEN 'paused' ELSE 'active' END = ANY($3))
    AND ($4::text[] IS NULL OR operation = ANY($4))
    AND ($5::timestamptz IS NULL OR created_at > $5) AND ($6::timestamptz IS NULL OR created_at < $6)
ORDER BY id DESC LIMIT $7

-- name: update_schedule
UPDATE schedules SET
    made_by = $2, name = $3, cron = $4, time_zone = $5, overlap = $6, missed = $7, catch_up_window_s = $8,
    jitter_s = $9, kind = $10, operation = $11, template = $12, is_paused = $13, paused_reason = $14,
    due_at = $15, fire_at = $16, scopes = $17, revision = revision + 1, changed_at = now()
WHERE id = $1
RETURNING *

-- name: delete_schedule
DELETE FROM schedules WHERE id = $1

-- name: has_schedules_at_work
SELECT EXISTS (SELECT FROM schedules WHERE fire_at <= now())
    OR EXISTS (SELECT FROM schedule_runs WHERE status = 'fired')
    OR EXISTS (SELECT FROM schedule_runs WHERE status = 'waiting')

-- name: list_due_schedules
-- Due schedules except those in $1: the first of each owner, then the second of each, and so on.
SELECT id FROM (
    SELECT id, fire_at, row_number() OVER (PARTITION BY owner_id ORDER BY fire_at, id) AS turn
    FROM schedules WHERE fire_at <= now() AND id <> ALL($1::uuid[])
) AS due
ORDER BY turn, fire_at LIMIT $2

-- name: lock_due_schedules
-- Those of the schedules that are still due, each for one coordinator only.
SELECT * FROM schedules WHERE id = ANY($1::uuid[]) AND fire_at <= $2 FOR UPDATE SKIP LOCKED

-- name: move_schedules
-- Sets the next due times of schedules; without one they are paused.
UPDATE schedules SET
    due_at = moved.due_at, fire_at = moved.fire_at, is_paused = moved.fire_at IS NULL, paused_reason = moved.reason
FROM unnest($1::uuid[], $2::timestamptz[], $3::timestamptz[], $4::text[]) AS moved (id, due_at, fire_at, reason)
WHERE schedules.id = moved.id

-- name: count_active_runs
-- Active and waiting runs of each schedule that has some. A fired run is active until its batch or task has ended,
-- even before that exists.
SELECT
    r.schedule_id,
    count(*) FILTER (WHERE r.status = 'fired' AND b.finished_at IS NULL) AS at_work,
    count(*) FILTER (WHERE r.status = 'waiting') AS waiting
FROM schedule_runs AS r LEFT JOIN batches AS b ON b.id = r.id
WHERE r.schedule_id = ANY($1::uuid[]) AND r.status IN ('fired', 'waiting')
GROUP BY r.schedule_id

-- name: insert_runs
INSERT INTO schedule_runs (
    id, schedule_id, owner_id, due_at, trigger, status, code, detail, request_key, fired_at, ended_at
)
SELECT
    id, schedule_id, owner_id, due_at, trigger, status, code, detail, request_key,
    CASE WHEN status = 'fired' THEN $10::timestamptz END,
    CASE WHEN status IN ('skipped', 'missed') THEN $10::timestamptz END
FROM unnest(
    $1::uuid[], $2::uuid[], $3::text[], $4::timestamptz[], $5::text[], $6::text[], $7::text[], $8::text[],
    $9::text[]
) AS new (id, schedule_id, owner_id, due_at, trigger, status, code, detail, request_key)
ON CONFLICT DO NOTHING
RETURNING id

-- name: trim_runs
-- The history of a schedule is its newest runs; runs that have not ended stay.
DELETE FROM schedule_runs AS old
USING unnest($1::uuid[]) AS trimmed (schedule_id)
WHERE old.schedule_id = trimmed.schedule_id AND old.status NOT IN ('waiting', 'fired') AND old.id < (
    SELECT id FROM schedule_runs WHERE schedule_id = trimmed.schedule_id ORDER BY id DESC OFFSET $2 LIMIT 1
)

-- name: settle_runs
-- Runs whose batch or task has ended.
UPDATE schedule_runs AS r SET status = 'ended', outcome = ended.status, ended_at = ended.finished_at
FROM (
    SELECT r.id, b.status, b.finished_at FROM schedule_runs AS r JOIN batches AS b USING (id)
    WHERE r.status = 'fired' AND b.finished_at IS NOT NULL
    LIMIT $1 FOR UPDATE OF r SKIP LOCKED
) AS ended
WHERE r.id = ended.id

-- name: give_up_runs
-- Runs that fired long ago and were never accepted.
UPDATE schedule_runs AS r SET status = 'refused', ended_at = now(), code = 'not-accepted', detail = $2
WHERE r.id IN (
    SELECT id FROM schedule_runs AS late
    WHERE status = 'fired' AND fired_at < now() - make_interval(secs => $1)
        AND NOT EXISTS (SELECT FROM batches WHERE id = late.id AND operation IS NOT NULL)
    LIMIT 1000 FOR UPDATE SKIP LOCKED
)

-- name: list_next_waiting
-- Schedules with a waiting run and no active one, except those in $1: the first of each owner, then the second of
-- each, and so on. While an owner has paused one, only runs that were asked for begin.
SELECT schedule_id AS id FROM (
    SELECT schedule_id, id, row_number() OVER (PARTITION BY owner_id ORDER BY id) AS turn
    FROM (
        SELECT DISTINCT ON (w.schedule_id) w.schedule_id, w.id, w.owner_id
        FROM schedule_runs AS w JOIN schedules AS s ON s.id = w.schedule_id
        WHERE w.status = 'waiting' AND w.schedule_id <> ALL($1::uuid[])
            AND (w.trigger = 'manual' OR NOT s.is_paused OR s.paused_reason IS NOT NULL)
        ORDER BY w.schedule_id, w.id
    ) AS oldest
    WHERE NOT EXISTS (
        SELECT FROM schedule_runs AS r LEFT JOIN batches AS b ON b.id = r.id
        WHERE r.schedule_id = oldest.schedule_id AND r.status = 'fired' AND b.finished_at IS NULL
    )
) AS first
ORDER BY turn, id LIMIT $2

-- name: lock_next_waiting
-- The oldest waiting run that may begin of each of the schedules without an active one, with the schedule.
SELECT s.*, first.id AS run_id, first.due_at AS run_due_at
FROM schedules AS s
CROSS JOIN LATERAL (
    SELECT id, due_at FROM schedule_runs
    WHERE schedule_id = s.id AND status = 'waiting'
        AND (trigger = 'manual' OR NOT s.is_paused OR s.paused_reason IS NOT NULL)
    ORDER BY id LIMIT 1
) AS first
WHERE s.id = ANY($1::uuid[])
    AND NOT EXISTS (
        SELECT FROM schedule_runs AS r LEFT JOIN batches AS b ON b.id = r.id
        WHERE r.schedule_id = s.id AND r.status = 'fired' AND b.finished_at IS NULL
    )
FOR UPDATE OF s SKIP LOCKED

-- name: fire_waiting
-- Fires runs; returns those that were still waiting.
UPDATE schedule_runs SET status = 'fired', fired_at = $2
WHERE id = ANY($1::uuid[]) AND status = 'waiting'
RETURNING id

-- name: refuse_runs
UPDATE schedule_runs AS r SET status = 'refused', ended_at = now(), code = refused.code, detail = refused.detail
FROM unnest($1::uuid[], $2::text[], $3::text[], $4::text[]) AS refused (id, owner_id, code, detail)
WHERE r.id = refused.id AND r.owner_id = refused.owner_id AND r.status = 'fired'

-- name: find_run_of_request
SELECT id FROM schedule_runs WHERE schedule_id = $1 AND request_key = $2

-- name: list_runs
-- The newest runs of each schedule, with the status of their batch or task; a filter that is NULL matches
-- everything.
SELECT run.* FROM unnest($1::uuid[]) AS wanted (schedule_id)
CROSS JOIN LATERAL (
    SELECT
        r.*, b.status AS batch_status, b.finished_at AS batch_finished_at, now_is.status AS shown_status,
        r.trigger <> 'manual' AND s.is_paused AND s.paused_reason IS NULL AS is_held
    FROM schedule_runs AS r JOIN schedules AS s ON s.id = r.schedule_id
    LEFT JOIN batches AS b ON b.id = r.id AND b.operation IS NOT NULL
    CROSS JOIN LATERAL (
        SELECT CASE
            WHEN r.status = 'fired' AND b.finished_at IS NOT NULL THEN 'ended'
            WHEN r.status = 'fired' AND b.id IS NOT NULL THEN 'accepted'
            ELSE r.status
        END AS status
    ) AS now_is
    WHERE r.schedule_id = wanted.schedule_id AND ($3::uuid IS NULL OR r.id = $3)
        AND ($4::uuid IS NULL OR r.id < $4)
        AND ($5::text[] IS NULL OR now_is.status = ANY($5)) AND ($6::text[] IS NULL OR r.trigger = ANY($6))
        AND ($7::timestamptz IS NULL OR r.created_at > $7) AND ($8::timestamptz IS NULL OR r.created_at < $8)
    ORDER BY r.id DESC LIMIT $2
) AS run
ORDER BY run.id DESC

-- name: count_late
-- Schedules that are past their time, and fired runs without a batch or task.
SELECT
    (SELECT count(*) FROM schedules WHERE fire_at < now() - make_interval(secs => $1)) + (
        SELECT count(*) FROM schedule_runs AS r
        WHERE r.status = 'fired' AND r.fired_at < now() - make_interval(secs => $1)
            AND NOT EXISTS (SELECT FROM batches AS b WHERE b.id = r.id AND b.operation IS NOT NULL)
    )

-- name: forget_schedule_requests
-- A request key is valid for a day.
UPDATE schedules SET request_key = NULL WHERE id IN (
    SELECT id FROM schedules WHERE request_key IS NOT NULL AND created_at < now() - interval '25 hours'
    LIMIT $1 FOR UPDATE SKIP LOCKED
)

-- name: forget_run_requests
UPDATE schedule_runs SET request_key = NULL WHERE id IN (
    SELECT id FROM schedule_runs WHERE request_key IS NOT NULL AND created_at < now() - interval '25 hours'
    LIMIT $1 FOR UPDATE SKIP LOCKED
)

-- name: remove_old_runs
DELETE FROM schedule_runs WHERE id IN (
    SELECT id FROM schedule_runs
    WHERE ended_at < now() - make_interval(days => $2)
    LIMIT $1 FOR UPDATE SKIP LOCKED
)
