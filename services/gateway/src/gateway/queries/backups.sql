-- name: find_last_backup
-- The start of the newest complete backup, in seconds since 1970; 0 if there is none.
SELECT coalesce(extract(epoch FROM max(started_at)), 0)::float8 FROM backups
