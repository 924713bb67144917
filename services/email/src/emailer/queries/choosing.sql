-- name: find_examined
-- The $4 newest mails in these statuses before the id $3: how many are in each, and which is the last. A list or a bulk
-- action that is narrowed further examines no others at a time: its filter may match none of very many.
SELECT status, count(*)::int AS most, min(id::text)::uuid AS last
FROM (
    SELECT found.status, found.id
    FROM unnest($2::text[]) AS wanted (status)
    CROSS JOIN LATERAL (
        SELECT status, id FROM emails
        WHERE owner_id = $1 AND emails.status >= wanted.status AND (emails.status, id) < (wanted.status, $3::uuid)
        ORDER BY emails.status DESC, id DESC
        LIMIT $4
    ) AS found
    ORDER BY found.id DESC
    LIMIT $4
) AS newest
GROUP BY status

-- name: list_emails
-- Of each status $2 up to $9 mails before the id $8 are examined. The status is a range and not equal to something, as
-- only the index of owners has this order then: by the primary key, a status that few mails are in would be looked for
-- in all of them. A lower limit of the ids would not end the reading of the index; the number does. OFFSET 0 lets the
-- recipients of one mail be read at a time; the planner may prefer those of all mails.
SELECT found.id, found.status, found.sender, found.subject, found.tags, found.accepted_at, found.send_at,
    found.expires_at, found.recipient_count
FROM unnest($2::text[], $8::uuid[], $9::int[]) AS part (status, before, most)
CROSS JOIN LATERAL (
    SELECT * FROM (
        SELECT * FROM emails
        WHERE owner_id = $1 AND emails.status >= part.status AND (emails.status, id) < (part.status, part.before)
        ORDER BY emails.status DESC, id DESC
        LIMIT part.most
    ) AS examined
    WHERE ($3::timestamptz IS NULL OR accepted_at > $3)
        AND ($4::timestamptz IS NULL OR accepted_at < $4)
        AND ($5::text IS NULL OR tags::jsonb ? $5)
        AND ($6::text IS NULL OR EXISTS (
            SELECT FROM recipients WHERE recipients.email_id = examined.id AND recipients.address = $6 OFFSET 0
        ))
        AND ($7::uuid[] IS NULL OR id = ANY($7))
    ORDER BY examined.status DESC, id DESC
    LIMIT $10
) AS found
ORDER BY found.id DESC
LIMIT $10

-- name: list_named_emails
-- Those of $7 that match, found one by one.
SELECT id, status, sender, subject, tags, accepted_at, send_at, expires_at, recipient_count
FROM emails
WHERE owner_id = $1 AND id = ANY($7::uuid[]) AND status = ANY($2::text[])
    AND ($3::timestamptz IS NULL OR accepted_at > $3)
    AND ($4::timestamptz IS NULL OR accepted_at < $4)
    AND ($5::text IS NULL OR tags::jsonb ? $5)
    AND ($6::text IS NULL OR EXISTS (
        SELECT FROM recipients WHERE recipients.email_id = emails.id AND recipients.address = $6 OFFSET 0
    ))
    AND id < $8
ORDER BY id DESC LIMIT $9

-- name: count_matching
-- Among the examined mails, as in a list, from the id $10 on.
SELECT count(*)
FROM unnest($2::text[], $8::uuid[], $9::int[]) AS part (status, before, most)
CROSS JOIN LATERAL (
    SELECT FROM (
        SELECT * FROM emails
        WHERE owner_id = $1 AND emails.status >= part.status AND (emails.status, id) < (part.status, part.before)
        ORDER BY emails.status DESC, id DESC
        LIMIT part.most
    ) AS examined
    WHERE ($3::timestamptz IS NULL OR accepted_at > $3)
        AND ($4::timestamptz IS NULL OR accepted_at < $4)
        AND ($5::text IS NULL OR tags::jsonb ? $5)
        AND ($6::text IS NULL OR EXISTS (
            SELECT FROM recipients WHERE recipients.email_id = examined.id AND recipients.address = $6 OFFSET 0
        ))
        AND ($7::uuid[] IS NULL OR id = ANY($7))
        AND ($10::uuid IS NULL OR id >= $10)
) AS found

-- name: find_changeable
-- Examined mails, as in a list, newest first, that have a recipient in one of $10 that, with $11, is not due already.
-- Those in hand are excluded: the relay may be reading them. So are recipients refused here, before any relay was asked:
-- they would be refused again, unless the reason was a sender domain, which may be verified by now.
SELECT found.id
FROM unnest($2::text[], $8::uuid[], $9::int[]) AS part (status, before, most)
CROSS JOIN LATERAL (
    SELECT id FROM (
        SELECT * FROM emails
        WHERE owner_id = $1 AND emails.status >= part.status AND (emails.status, id) < (part.status, part.before)
        ORDER BY emails.status DESC, id DESC
        LIMIT part.most
    ) AS examined
    WHERE ($3::timestamptz IS NULL OR accepted_at > $3)
        AND ($4::timestamptz IS NULL OR accepted_at < $4)
        AND ($5::text IS NULL OR tags::jsonb ? $5)
        AND ($6::text IS NULL OR EXISTS (
            SELECT FROM recipients WHERE recipients.email_id = examined.id AND recipients.address = $6 OFFSET 0
        ))
        AND ($7::uuid[] IS NULL OR id = ANY($7))
        AND letter::text <> '{}' AND stripped = 0
        AND EXISTS (
            SELECT FROM recipients
            WHERE recipients.email_id = examined.id AND recipients.status = ANY($10::text[])
                AND (NOT $11 OR recipients.due_at IS NULL OR recipients.due_at > now())
                AND NOT EXISTS (
                    SELECT FROM attempts
                    WHERE attempts.email_id = recipients.email_id AND attempts.position = recipients.position
                        AND attempts.host = '' AND attempts.outcome = 'failed'
                        AND NOT starts_with(attempts.smtp_reply, 'not sent: sender-not-allowed:')
                )
            OFFSET 0
        )
    ORDER BY examined.status DESC, id DESC
    LIMIT $12
) AS found
ORDER BY found.id DESC
LIMIT $12

-- name: cancel_recipients
WITH open AS (
    SELECT email_id, position FROM recipients
    WHERE email_id = ANY($1::uuid[]) AND status = ANY('{queued,deferred,ambiguous,held}')
    ORDER BY email_id, position
    FOR UPDATE
)
UPDATE recipients SET status = 'cancelled', due_at = NULL, ready = false
FROM open
WHERE recipients.email_id = open.email_id AND recipients.position = open.position
RETURNING recipients.email_id, recipients.position

-- name: retry_recipients
-- As if it had just been accepted: the schedule begins anew, and so does the count of doubts. The caller has locked
-- the mails, so that their content stays. Rows of an older release, which have no owner yet, become ready when due.
WITH open AS (
    SELECT email_id, position FROM recipients
    WHERE email_id = ANY($1::uuid[]) AND status = ANY('{deferred,ambiguous,held,failed,expired,suppressed}')
        AND EXISTS (SELECT FROM emails WHERE emails.id = email_id AND letter::text <> '{}' AND stripped = 0)
        AND NOT EXISTS (
            SELECT FROM attempts
            WHERE attempts.email_id = recipients.email_id AND attempts.position = recipients.position
                AND attempts.host = '' AND attempts.outcome = 'failed'
                AND NOT starts_with(attempts.smtp_reply, 'not sent: sender-not-allowed:')
        )
    ORDER BY email_id, position
    FOR UPDATE
)
UPDATE recipients
SET status = 'deferred', due_at = now(), ready = owner_id <> '', tries = 0, doubts = 0,
    expires_at = greatest(recipients.expires_at, now() + $2 * interval '1 second')
FROM open
WHERE recipients.email_id = open.email_id AND recipients.position = open.position
RETURNING recipients.email_id, recipients.position

-- name: prolong_emails
-- With the recipients that were not retried, as they are waiting still.
WITH waiting AS (
    UPDATE recipients SET expires_at = greatest(expires_at, now() + $2 * interval '1 second')
    WHERE email_id = ANY($1::uuid[]) AND due_at IS NOT NULL
)
UPDATE emails SET expires_at = greatest(expires_at, now() + $2 * interval '1 second') WHERE id = ANY($1::uuid[])

-- name: lock_recipients
-- Recipients are locked before their mail, as everywhere: the other order could deadlock with recording of outcomes.
SELECT FROM recipients WHERE email_id = ANY($1::uuid[]) ORDER BY email_id, position FOR NO KEY UPDATE

-- name: lock_untried
-- Locks a mail if none of its recipients was tried or is in hand.
SELECT coalesce(send_at, accepted_at) AS planned, expires_at FROM emails
WHERE id = $1 AND owner_id = $2
    AND EXISTS (SELECT FROM recipients WHERE email_id = $1 AND status = 'queued')
    AND NOT EXISTS (
        SELECT FROM recipients
        WHERE email_id = $1 AND (tries > 0 OR status = ANY('{sending,deferred,ambiguous,held}'))
    )
FOR NO KEY UPDATE

-- name: reschedule_recipients
UPDATE recipients SET due_at = $2, ready = owner_id <> '' AND $2 <= now(), expires_at = $3
WHERE email_id = $1 AND status = 'queued'
RETURNING position

-- name: reschedule_email
UPDATE emails SET send_at = $2, expires_at = $3 WHERE id = $1

-- name: keep_for_copy
-- A removal that is under way was first: nothing is kept then, and the mail says that its content is gone.
UPDATE emails SET kept_until = now() + $3 * interval '1 second'
WHERE id = $1 AND owner_id = $2 AND letter::text <> '{}' AND stripped = 0

-- name: copy_email
-- The copy has the trace of the request that asked for it, and a Message-ID of its own. The source is locked, so that
-- its attachments exist until they are copied.
INSERT INTO emails (
    id, owner_id, status, sender, subject, letter, text_body, html_body, attachment_count, recipient_count,
    tags, metadata, accepted_at, send_at, expires_at, traceparent, request_id, stream, message_id,
    template_name, template_version, template_data
)
SELECT
    $1, owner_id, 'queued', sender, subject, letter, text_body, html_body, attachment_count, recipient_count,
    tags, metadata, $4, NULL, $4::timestamptz + $5 * interval '1 second', $6, $7, stream, $8,
    template_name, template_version, template_data
FROM emails
WHERE id = $2 AND owner_id = $3 AND letter::text <> '{}' AND stripped = 0
FOR SHARE
ON CONFLICT (id) DO NOTHING
RETURNING id

-- name: copy_recipients
-- An address that was refused here stays refused, unless the sender was the reason.
INSERT INTO recipients (
    email_id, position, kind, address, status, due_at, size_bytes, expires_at, stream, owner_id, domain, ready
)
SELECT
    $1, position, kind, address,
    CASE WHEN refused THEN 'failed' ELSE 'queued' END,
    CASE WHEN refused THEN NULL ELSE $3::timestamptz END,
    size_bytes, $3::timestamptz + $4 * interval '1 second', stream, owner_id, domain,
    NOT refused AND owner_id <> ''
FROM recipients
CROSS JOIN LATERAL (
    SELECT EXISTS (
        SELECT FROM attempts
        WHERE attempts.email_id = recipients.email_id AND attempts.position = recipients.position
            AND attempts.host = '' AND attempts.outcome = 'failed'
            AND NOT starts_with(attempts.smtp_reply, 'not sent: sender-not-allowed:')
    ) AS refused
) AS earlier
WHERE email_id = $2

-- name: copy_refusals
INSERT INTO attempts (email_id, position, at, host, outcome, smtp_code, smtp_reply, tls)
SELECT $1, position, $3, host, outcome, smtp_code, smtp_reply, tls
FROM attempts
WHERE email_id = $2 AND host = '' AND outcome = 'failed'
    AND NOT starts_with(smtp_reply, 'not sent: sender-not-allowed:')

-- name: copy_attachments
INSERT INTO attachments (email_id, position, filename, content_type, content_id, content, upload_id)
SELECT $1, position, filename, content_type, content_id, content, upload_id FROM attachments WHERE email_id = $2
