-- name: find_last_backup
-- When the newest complete backup was begun, in seconds since 1970; 0 when there is none.
SELECT coalesce(extract(epoch FROM max(started_at)), 0)::float8 FROM backups
