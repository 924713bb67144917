-- name: read_email
SELECT id, status, sender, subject, message_id, tags, metadata, stream, accepted_at, send_at, expires_at,
    letter::text <> '{}' AND stripped = 0 AS content_available, template_name, template_version
FROM emails
WHERE id = $1 AND owner_id = $2

-- name: read_recipients
SELECT position, kind, address, status, due_at, tries FROM recipients WHERE email_id = $1 ORDER BY position

-- name: read_attempts
-- The newest $2 of each recipient.
SELECT position, at, host, outcome, smtp_code, smtp_reply, tls
FROM (
    SELECT *, row_number() OVER (PARTITION BY position ORDER BY id DESC) AS nth FROM attempts WHERE email_id = $1
) AS tried
WHERE nth <= $2
ORDER BY id

-- name: read_events
-- The newest $2.
SELECT at, kind, position, '' AS detail FROM email_events WHERE email_id = $1
UNION ALL
SELECT at, 'bounced', position, kind || ': ' || detail FROM bounces WHERE email_id = $1
ORDER BY at DESC LIMIT $2
