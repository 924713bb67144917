-- name: lock_alert_owner
-- The owner's row, locked until the transaction ends: alerts of one owner are created one after the other.
INSERT INTO alert_owners (owner_id) VALUES ($1)
ON CONFLICT (owner_id) DO UPDATE SET owner_id = excluded.owner_id
RETURNING epoch, last_offset

-- name: find_alert_of_request
SELECT * FROM alerts WHERE owner_id = $1 AND request_key = $2

-- name: count_armed_alerts
SELECT count(*) FROM alerts
WHERE owner_id = $1 AND deleted_at IS NULL AND NOT (once AND fired_count > 0)
    AND (expires_at IS NULL OR expires_at > now())

-- name: insert_alert
INSERT INTO alerts (
    id, owner_id, made_by, request_key, symbol, kind, threshold, emails, webhooks, once, expires_at, side, day
) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)
RETURNING *

-- name: get_alert
SELECT * FROM alerts WHERE id = $1 AND owner_id = $2 AND deleted_at IS NULL

-- name: list_alerts
-- A page of an owner's alerts, newest first; a filter that is NULL matches everything.
SELECT alerts.* FROM alerts
CROSS JOIN LATERAL (
    SELECT CASE WHEN once AND fired_count > 0 THEN 'fired' WHEN expires_at <= now() THEN 'expired'
        ELSE 'armed' END AS status
) AS now_is
WHERE owner_id = $1 AND deleted_at IS NULL AND ($2::uuid IS NULL OR id < $2)
    AND ($3::text IS NULL OR symbol = $3) AND ($4::text[] IS NULL OR now_is.status = ANY($4))
    AND ($5::timestamptz IS NULL OR created_at > $5) AND ($6::timestamptz IS NULL OR created_at < $6)
ORDER BY id DESC LIMIT $7

-- name: delete_alert
UPDATE alerts SET deleted_at = now(), request_key = NULL,
    changed_xid = pg_current_xact_id()::text::bigint
WHERE id = $1 AND owner_id = $2 AND deleted_at IS NULL
RETURNING *

-- name: find_alert_owner
SELECT epoch, last_offset FROM alert_owners WHERE owner_id = $1

-- name: list_firings
SELECT * FROM alert_firings
WHERE owner_id = $1 AND number > $2 AND number < $3
ORDER BY CASE WHEN $4 THEN -number ELSE number END LIMIT $5

-- name: alert_horizon
-- Every transaction that has not committed yet has this number or a higher one.
SELECT pg_snapshot_xmin(pg_current_snapshot())::text::bigint AS xid, now() AS at

-- name: select_watched_alerts
-- A page of the alerts that can fire, in the order of their ids.
SELECT id, owner_id, symbol, kind, threshold, once, side, day, version, expires_at, fired_at FROM alerts
WHERE id > $1 AND deleted_at IS NULL AND NOT (once AND fired_count > 0)
    AND (expires_at IS NULL OR expires_at > now())
ORDER BY id LIMIT $2

-- name: select_changed_alerts
-- The next horizon, with the alerts created or deleted by transactions that had not committed at the last one, and
-- those that have expired since; without any, the horizon alone. `is_over`: the alert cannot fire any more. Rows
-- of a restored database may have transaction numbers that are still to come.
SELECT horizon.xid, horizon.at, changed.*
FROM (SELECT pg_snapshot_xmin(pg_current_snapshot())::text::bigint AS xid, now() AS at) AS horizon
LEFT JOIN (
    SELECT id, owner_id, symbol, kind, threshold, once, side, day, version, expires_at, fired_at,
        deleted_at IS NOT NULL OR (once AND fired_count > 0) OR coalesce(expires_at <= now(), false) AS is_over
    FROM alerts
    WHERE (changed_xid >= $1 AND changed_xid < pg_snapshot_xmax(pg_current_snapshot())::text::bigint)
        OR (expires_at > $2 AND expires_at <= now())
) AS changed ON true

-- name: select_alerts
SELECT id, owner_id, symbol, kind, threshold, once, side, day, version, expires_at, fired_at,
    deleted_at IS NOT NULL OR (once AND fired_count > 0) OR coalesce(expires_at <= now(), false) AS is_over
FROM alerts WHERE id = ANY($1::uuid[])

-- name: hold_term
-- No row when a later term has begun; otherwise none can begin before this transaction has ended.
SELECT true FROM replay WHERE term = $1 FOR SHARE

-- name: change_sides
-- Each change is made once: to the version that was read, and to an alert that can still fire.
UPDATE alerts SET side = c.side, day = c.day, version = alerts.version + 1,
    fired_count = alerts.fired_count + c.fires::int,
    fired_at = CASE WHEN c.fires THEN c.as_of ELSE alerts.fired_at END,
    fired_price = CASE WHEN c.fires THEN c.price ELSE alerts.fired_price END
FROM unnest(
    $1::uuid[], $2::int[], $3::smallint[], $4::date[], $5::boolean[], $6::timestamptz[], $7::numeric[]
) AS c (id, version, side, day, fires, as_of, price)
WHERE alerts.id = c.id AND alerts.version = c.version AND alerts.deleted_at IS NULL
    AND NOT (alerts.once AND alerts.fired_count > 0)
    AND (alerts.expires_at IS NULL OR alerts.expires_at > c.as_of)
RETURNING alerts.id, alerts.owner_id, alerts.made_by, alerts.emails, alerts.webhooks

-- name: advance_alert_owners
UPDATE alert_owners SET last_offset = last_offset + n.count
FROM unnest($1::text[], $2::int[]) AS n (owner_id, count)
WHERE alert_owners.owner_id = n.owner_id
RETURNING alert_owners.owner_id, epoch, last_offset

-- name: insert_firings
INSERT INTO alert_firings (
    id, owner_id, number, alert_id, symbol, kind, threshold, price, change_percent, as_of, source, simulated
)
SELECT * FROM unnest(
    $1::uuid[], $2::text[], $3::bigint[], $4::uuid[], $5::text[], $6::text[], $7::numeric[], $8::numeric[],
    $9::numeric[], $10::timestamptz[], $11::text[], $12::boolean[]
)

-- name: clean_alerts
-- Deleted alerts after five minutes, ended ones after $1 days; locked rows are skipped.
DELETE FROM alerts WHERE id IN (
    SELECT id FROM alerts
    WHERE coalesce(deleted_at, expires_at, fired_at) < now() - interval '5 minutes'
        AND (
            deleted_at IS NOT NULL
            OR expires_at < now() - make_interval(days => $1)
            OR (once AND fired_at < now() - make_interval(days => $1))
        )
    LIMIT $2 FOR UPDATE SKIP LOCKED
)

-- name: clean_firings
DELETE FROM alert_firings WHERE id IN (
    SELECT id FROM alert_firings WHERE as_of < now() - make_interval(days => $1) LIMIT $2
    FOR UPDATE SKIP LOCKED
)

-- name: forget_alert_requests
-- A request key is valid for a day.
UPDATE alerts SET request_key = NULL WHERE id IN (
    SELECT id FROM alerts WHERE request_key IS NOT NULL AND created_at < now() - interval '25 hours'
    LIMIT $1 FOR UPDATE SKIP LOCKED
)
