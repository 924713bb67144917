-- name: find_user_of_subject
SELECT u.id, u.name, u.email, u.role, u.status
FROM user_subjects AS s JOIN users AS u ON u.id = s.user_id
WHERE s.issuer = $1 AND s.subject = $2

-- name: lock_subject
-- Holds the lock until the transaction ends.
SELECT pg_advisory_xact_lock(hashtextextended($1, 7214803553))

-- name: insert_subject
INSERT INTO user_subjects (issuer, subject, user_id) VALUES ($1, $2, $3)
