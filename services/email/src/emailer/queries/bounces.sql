-- name: find_bounced
SELECT recipients.email_id, position, emails.owner_id, recipients.stream, address
FROM recipients JOIN emails ON emails.id = recipients.email_id
WHERE recipients.email_id = $1 AND position = $2
FOR NO KEY UPDATE OF recipients

-- name: look_at_bounces
-- The owner of a mail, the number of a recipient's bounces, whether one is permanent, and the kind of the one with this
-- digest; no row for an unknown recipient.
SELECT
    emails.owner_id,
    count(bounces.digest) AS count,
    coalesce(bool_or(bounces.kind = 'hard'), false) AS has_hard,
    max(bounces.kind) FILTER (WHERE digest = $3) AS known
FROM recipients JOIN emails ON emails.id = recipients.email_id
    LEFT JOIN bounces ON bounces.email_id = recipients.email_id AND bounces.position = recipients.position
WHERE recipients.email_id = $1 AND recipients.position = $2
GROUP BY emails.owner_id

-- name: note_bounce
-- Stores up to $6 bounces of a recipient, and beyond them the first of each kind.
INSERT INTO bounces (email_id, position, digest, kind, detail)
SELECT $1, $2, $3, $4, $5
WHERE (SELECT count(*) FROM bounces WHERE email_id = $1 AND position = $2) < $6
    OR NOT EXISTS (SELECT FROM bounces WHERE email_id = $1 AND position = $2 AND kind = $4)
ON CONFLICT (email_id, position, digest) DO NOTHING
RETURNING position

-- name: fail_bounced
-- The relay did accept the mail, but it was refused later.
UPDATE recipients SET status = 'failed', due_at = NULL, ready = false, holder = NULL
WHERE email_id = $1 AND position = $2 AND status = ANY('{delivered,ambiguous,held}')
RETURNING position

-- name: deliver_reported
UPDATE recipients SET status = 'delivered', due_at = NULL, ready = false, holder = NULL
WHERE email_id = $1 AND position = $2 AND status = ANY('{ambiguous,held,failed,expired}')
RETURNING position
