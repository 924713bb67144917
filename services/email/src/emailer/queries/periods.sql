-- name: find_periods
SELECT content_days, record_days, version, changed_at FROM retention_periods WHERE owner_id = $1

-- name: set_periods
-- Returns no row when the version is not $4; null is any, zero is that of an owner who never chose.
INSERT INTO retention_periods (owner_id, content_days, record_days) VALUES ($1, $2, $3)
ON CONFLICT (owner_id) DO UPDATE
SET content_days = excluded.content_days, record_days = excluded.record_days,
    version = retention_periods.version + 1, changed_at = now()
WHERE $4::bigint IS NULL OR retention_periods.version = $4
RETURNING content_days, record_days, version, changed_at
