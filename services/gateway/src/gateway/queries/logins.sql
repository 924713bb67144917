-- name: use_login
-- Mark a login address as used; no row when it was used before. Another gateway that tries the same one waits here.
INSERT INTO used_logins (id, expires_at) VALUES ($1, $2) ON CONFLICT DO NOTHING RETURNING id

-- name: forget_old_logins
-- What has expired is refused for that; a day more, because clocks differ.
DELETE FROM used_logins WHERE expires_at < now() - interval '1 day'
