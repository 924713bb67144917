-- name: make_ready
-- What waited for its time, and what a process let fall, gets into line.
WITH due AS (
    SELECT email_id, position
    FROM recipients
    WHERE due_at <= now() AND due_at IS NOT NULL AND NOT ready
    ORDER BY due_at
    LIMIT $1
    FOR UPDATE SKIP LOCKED
)
UPDATE recipients
SET ready = true,
    owner_id = CASE recipients.owner_id
        WHEN '' THEN (SELECT emails.owner_id FROM emails WHERE emails.id = recipients.email_id)
        ELSE recipients.owner_id
    END,
    domain = CASE recipients.domain
        WHEN '' THEN coalesce(nullif(substring(address FROM '@([^@]*)$'), ''), '?')
        ELSE recipients.domain
    END
FROM due
WHERE recipients.email_id = due.email_id AND recipients.position = due.position

-- name: look
-- In how many seconds the next recipient is due that is in no lane yet, and whether there is one in a lane.
SELECT
    (
        SELECT extract(epoch FROM min(due_at) - now())::float8 FROM recipients
        WHERE due_at IS NOT NULL AND NOT ready
    ) AS due_in_s,
    EXISTS (SELECT FROM recipients WHERE ready ORDER BY stream, owner_id, domain, due_at LIMIT 1) AS has_ready

-- name: find_owners
-- The next owners in the round who have something ready: one probe of the index each, however much it is.
WITH RECURSIVE owners AS (
    (
        SELECT owner_id, 1 AS number FROM recipients
        WHERE ready AND stream = $1 AND owner_id > $2
        ORDER BY owner_id LIMIT 1
    )
    UNION ALL
    SELECT following.owner_id, owners.number + 1
    FROM owners
    CROSS JOIN LATERAL (
        SELECT owner_id FROM recipients
        WHERE ready AND stream = $1 AND recipients.owner_id > owners.owner_id
        ORDER BY owner_id LIMIT 1
    ) AS following
    WHERE owners.number < $3
)
SELECT owner_id FROM owners

-- name: find_lanes
-- The next domains in the rounds of these owners, likewise.
SELECT owners.owner_id, domains.domain
FROM unnest($2::text[], $3::text[]) AS owners (owner_id, after)
CROSS JOIN LATERAL (
    WITH RECURSIVE found AS (
        (
            SELECT domain, 1 AS number FROM recipients
            WHERE ready AND stream = $1 AND recipients.owner_id = owners.owner_id AND domain > owners.after
            ORDER BY domain LIMIT 1
        )
        UNION ALL
        SELECT following.domain, found.number + 1
        FROM found
        CROSS JOIN LATERAL (
            SELECT domain FROM recipients
            WHERE ready AND stream = $1 AND recipients.owner_id = owners.owner_id
                AND recipients.domain > found.domain
            ORDER BY domain LIMIT 1
        ) AS following
        WHERE found.number < $4
    )
    SELECT domain FROM found
) AS domains

-- name: claim_lanes
-- Takes from each lane what has been ready longest, but no more than `$8` bytes of mails in all (and at least
-- one recipient). The recipients of a mail share its bytes.
WITH due AS (
    SELECT taken.*
    FROM unnest($1::text[], $2::text[], $3::text[], $4::int[]) AS lane (stream, owner_id, domain, most)
    CROSS JOIN LATERAL (
        SELECT email_id, position, status, due_at, size_bytes
        FROM recipients
        WHERE ready AND recipients.stream = lane.stream AND recipients.owner_id = lane.owner_id
            AND recipients.domain = lane.domain AND due_at <= now()
        ORDER BY due_at
        LIMIT lane.most
        FOR UPDATE SKIP LOCKED
    ) AS taken
    LIMIT $5
), sized AS (
    SELECT
        email_id,
        position,
        status,
        due_at,
        CASE row_number() OVER (PARTITION BY email_id ORDER BY due_at, position)
            WHEN 1 THEN size_bytes ELSE 0
        END AS new_bytes
    FROM due
), fit AS (
    SELECT
        email_id,
        position,
        status AS was,
        due_at AS was_due_at,
        sum(new_bytes) OVER (ORDER BY due_at, email_id, position) - new_bytes AS bytes_before
    FROM sized
)
UPDATE recipients
SET status = 'sending', ready = false, holder = $6, due_at = now() + $7 * interval '1 second'
FROM fit
WHERE recipients.email_id = fit.email_id AND recipients.position = fit.position AND fit.bytes_before < $8
RETURNING
    recipients.email_id, recipients.position, recipients.address, recipients.tries, recipients.doubts,
    recipients.stream, recipients.size_bytes, fit.was, fit.was_due_at

-- name: measure_ready
-- Counts up to `$1`.
SELECT count(*) FROM (SELECT FROM recipients WHERE ready LIMIT $1) AS counted

-- name: oldest_of_lanes
SELECT coalesce(extract(epoch FROM now() - min(first.due_at)), 0)::float8
FROM unnest($1::text[], $2::text[], $3::text[]) AS lane (stream, owner_id, domain)
CROSS JOIN LATERAL (
    SELECT due_at FROM recipients
    WHERE ready AND recipients.stream = lane.stream AND recipients.owner_id = lane.owner_id
        AND recipients.domain = lane.domain
    ORDER BY due_at LIMIT 1
) AS first
