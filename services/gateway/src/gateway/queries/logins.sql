-- name: use_login
-- Mark a login address as used; no row if it was used before. Another gateway that uses the same one waits here.
INSERT INTO used_logins (id, expires_at) VALUES ($1, $2) ON CONFLICT DO NOTHING RETURNING id

-- name: forget_old_logins
-- Expired logins are refused anyway; kept for another day, because clocks differ.
DELETE FROM used_logins WHERE expires_at < now() - interval '1 day'
