-- name: renew_leases
UPDATE recipients
SET due_at = now() + $4 * interval '1 second'
FROM unnest($2::uuid[], $3::smallint[]) AS held (email_id, position)
WHERE recipients.email_id = held.email_id AND recipients.position = held.position
    AND recipients.holder = $1 AND recipients.status = 'sending'

-- name: read_mails
SELECT
    id, owner_id, subject, letter, text_body, html_body, attachment_count, recipient_count, accepted_at, send_at,
    expires_at, traceparent, request_id, message_id,
    template_name, template_version, template_data
FROM emails
WHERE id = ANY($1::uuid[])

-- name: read_attachments
SELECT email_id, filename, content_type, content_id, content, upload_id
FROM attachments
WHERE email_id = ANY($1::uuid[])
ORDER BY email_id, position

-- name: keep_text
-- Unless the content was removed meanwhile, or another process was first.
UPDATE emails SET text_body = $2 WHERE id = $1 AND text_body IS NULL AND html_body IS NOT NULL

-- name: count_held
SELECT count(*) FROM recipients WHERE status = 'held'

-- name: expire_recipients
WITH late AS (
    SELECT email_id, position
    FROM recipients
    WHERE expires_at <= now() AND due_at IS NOT NULL AND status <> 'sending'
    ORDER BY expires_at
    LIMIT $1
    FOR UPDATE SKIP LOCKED
)
UPDATE recipients
SET status = 'expired', due_at = NULL, ready = false, holder = NULL
FROM late
WHERE recipients.email_id = late.email_id AND recipients.position = late.position
RETURNING recipients.email_id, recipients.position

-- name: note_events
INSERT INTO email_events (email_id, position, kind) SELECT *, $3 FROM unnest($1::uuid[], $2::smallint[])

-- name: record_outcomes
-- Only the holder may write; but a delivery is a fact, whoever holds the recipient meanwhile, and whatever its
-- status says. Attempts that were made, those with a time, are recorded in any case.
WITH outcome AS (
    SELECT * FROM unnest($2::given_outcome[])
), attempted AS (
    INSERT INTO attempts (email_id, position, at, host, outcome, smtp_code, smtp_reply, tls)
    SELECT email_id, position, at, host, result, smtp_code, smtp_reply, tls FROM outcome WHERE at IS NOT NULL
)
UPDATE recipients
SET status = outcome.status, due_at = outcome.due_at, ready = coalesce(outcome.due_at <= now(), false),
    tries = outcome.tries, doubts = outcome.doubts, holder = NULL,
    attempts = recipients.attempts + (outcome.at IS NOT NULL)::int
FROM outcome
WHERE recipients.email_id = outcome.email_id AND recipients.position = outcome.position
    AND (recipients.holder = $1 OR (outcome.status = 'delivered' AND recipients.status <> 'delivered'))
RETURNING recipients.email_id, recipients.position, recipients.attempts

-- name: record_waits
-- That recipients were not tried: in place of the same about them, if nothing has happened since. OFFSET 0: the
-- attempts of a mail are few, and those of all mails would be read backwards.
WITH given AS (
    SELECT * FROM unnest(
        $1::uuid[], $2::smallint[], $3::timestamptz[], $4::text[], $5::text[], $6::smallint[], $7::text[], $8::boolean[]
    ) AS given (email_id, position, at, host, outcome, smtp_code, smtp_reply, tls)
), placed AS (
    SELECT given.*, newest.id
    FROM given
    LEFT JOIN LATERAL (
        SELECT id, host, own.outcome, own.smtp_reply
        FROM (SELECT * FROM attempts WHERE email_id = given.email_id AND position = given.position OFFSET 0) AS own
        ORDER BY id DESC LIMIT 1
    ) AS newest
        ON newest.host = '' AND newest.outcome = 'deferred' AND starts_with(newest.smtp_reply, 'not tried: ')
), renewed AS (
    UPDATE attempts SET at = placed.at, smtp_reply = placed.smtp_reply FROM placed WHERE attempts.id = placed.id
)
INSERT INTO attempts (email_id, position, at, host, outcome, smtp_code, smtp_reply, tls)
SELECT email_id, position, at, host, outcome, smtp_code, smtp_reply, tls FROM placed WHERE id IS NULL

-- name: forget_attempts
-- Of these recipients all attempts but the newest $3.
DELETE FROM attempts USING (
    SELECT tried.id
    FROM unnest($1::uuid[], $2::smallint[]) AS worn (email_id, position)
    CROSS JOIN LATERAL (
        SELECT id FROM (
            SELECT id FROM attempts
            WHERE attempts.email_id = worn.email_id AND attempts.position = worn.position
            OFFSET 0
        ) AS own
        ORDER BY id DESC OFFSET $3
    ) AS tried
) AS old
WHERE attempts.id = old.id

-- name: forget_events
-- Of these mails all events but the newest $2.
DELETE FROM email_events USING (
    SELECT id, row_number() OVER (PARTITION BY email_id ORDER BY id DESC) AS nth
    FROM email_events WHERE email_id = ANY($1::uuid[])
) AS ranked
WHERE email_events.id = ranked.id AND ranked.nth > $2

-- name: record_attempts
INSERT INTO attempts (email_id, position, at, host, outcome, smtp_code, smtp_reply, tls)
SELECT * FROM unnest(
    $1::uuid[], $2::smallint[], $3::timestamptz[], $4::text[], $5::text[], $6::smallint[], $7::text[], $8::boolean[]
)

-- name: lock_emails
-- In a fixed order, so that two processes cannot deadlock.
SELECT id FROM emails WHERE id = ANY($1::uuid[]) ORDER BY id FOR NO KEY UPDATE

-- name: read_states
SELECT email_id, array_agg(status) AS statuses FROM recipients WHERE email_id = ANY($1::uuid[]) GROUP BY email_id

-- name: change_statuses
UPDATE emails
SET status = changed.status,
    ended_at = CASE
        WHEN changed.status = ANY('{delivered,partially_delivered,failed,suppressed,cancelled,expired}') THEN now()
    END
FROM unnest($1::uuid[], $2::text[]) AS changed (id, status)
WHERE emails.id = changed.id AND emails.status <> changed.status
RETURNING emails.id AS email_id, emails.owner_id, emails.status, emails.traceparent, emails.request_id
