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
