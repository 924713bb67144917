-- name: find_bounced
SELECT recipients.email_id, position, emails.owner_id, recipients.stream, address
FROM recipients JOIN emails ON emails.id = recipients.email_id
WHERE recipients.email_id = $1 AND position = $2
FOR NO KEY UPDATE OF emails

-- name: note_bounce
INSERT INTO bounces (email_id, position, digest, kind, detail)
SELECT $1, $2, $3, $4, $5
WHERE (SELECT count(*) FROM bounces WHERE email_id = $1 AND position = $2) < $6
ON CONFLICT (email_id, position, digest) DO NOTHING
RETURNING position

-- name: fail_bounced
-- That the relay took it was true, and not the end.
UPDATE recipients SET status = 'failed', due_at = NULL, ready = false, holder = NULL
WHERE email_id = $1 AND position = $2 AND status = ANY('{delivered,ambiguous,held}')
RETURNING position

-- name: deliver_reported
UPDATE recipients SET status = 'delivered', due_at = NULL, ready = false, holder = NULL
WHERE email_id = $1 AND position = $2 AND status = ANY('{ambiguous,held,failed,expired}')
RETURNING position
