-- name: insert_webhook
INSERT INTO webhooks (id, owner_id, url, events, description, made_by, maker_scopes, secret, sealed_with)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)
RETURNING *

-- name: lock_webhooks_of_owner
-- So that two requests at once cannot make one webhook too many.
SELECT pg_advisory_xact_lock(hashtextextended('webhooks of ' || $1, 0))

-- name: count_webhooks_of_owner
SELECT count(*) FROM webhooks WHERE owner_id = $1 AND status <> 'deleted'

-- name: find_webhook
SELECT * FROM webhooks WHERE id = $1 AND owner_id = $2 AND status <> 'deleted'

-- name: find_known_webhooks
SELECT id FROM webhooks WHERE id = ANY ($1::uuid[]) AND owner_id = $2 AND status <> 'deleted'

-- name: lock_webhook
SELECT * FROM webhooks WHERE id = $1 AND owner_id = $2 AND status <> 'deleted' FOR NO KEY UPDATE

-- name: list_webhooks
-- Newest first: ids are made in the order of time.
SELECT * FROM webhooks
WHERE owner_id = $1 AND status <> 'deleted' AND ($2::uuid IS NULL OR id < $2)
ORDER BY id DESC LIMIT $3

-- name: change_webhook
UPDATE webhooks SET
    url = $2, events = $3, description = $4, status = $5, disabled_reason = $6, made_by = $7, maker_scopes = $8,
    failures = CASE WHEN url = $2 AND status = $5 THEN failures ELSE 0 END, revision = revision + 1
WHERE id = $1
RETURNING *

-- name: rotate_webhook_secret
UPDATE webhooks SET
    previous_secret = CASE WHEN $4::timestamptz IS NULL THEN NULL ELSE secret END, previous_until = $4,
    secret = $2, sealed_with = $3, revision = revision + 1
WHERE id = $1
RETURNING *

-- name: delete_webhook
UPDATE webhooks SET status = 'deleted' WHERE id = $1

-- name: find_sealed_webhooks
-- Those whose secrets are encrypted with another pepper.
SELECT id, secret, previous_secret, sealed_with FROM webhooks
WHERE sealed_with <> $1 AND status <> 'deleted' AND id > $2 ORDER BY id LIMIT $3
FOR NO KEY UPDATE

-- name: reseal_webhook
UPDATE webhooks SET secret = $2, previous_secret = $3, sealed_with = $4 WHERE id = $1

-- name: find_listening_webhooks
-- The webhooks of these owners that listen to one of these types of events, or have one of these ids. Until the
-- transaction ends nobody disables or removes them: what is promised to them meanwhile would wait for ever.
SELECT id, owner_id, events, made_by, maker_scopes FROM webhooks
WHERE owner_id = ANY ($1::text[]) AND status = 'active' AND (events && $2::text[] OR id = ANY ($3::uuid[]))
ORDER BY id FOR SHARE

-- name: count_pending_deliveries
-- Up to a limit: nobody needs to know how many more there are.
SELECT wanted.id, count(waiting.n) AS pending FROM unnest($1::uuid[]) AS wanted (id)
LEFT JOIN LATERAL (
    SELECT 1 AS n FROM webhook_deliveries WHERE webhook_id = wanted.id AND status = 'pending' LIMIT $2
) AS waiting ON true
GROUP BY wanted.id

-- name: insert_deliveries
INSERT INTO webhook_deliveries (id, webhook_id, owner_id, type, payload)
SELECT * FROM unnest($1::uuid[], $2::uuid[], $3::text[], $4::text[], $5::text[])

-- name: find_due_webhooks
-- The first delivery that each active webhook waits for, if it is due before a time from now: one webhook of each
-- owner, then the next one of each, so that nobody's webhooks hide those of others. Nothing is sent for users who were
-- disabled. From one webhook that something waits for to the next: no others are read.
WITH RECURSIVE first AS (
    (
        SELECT webhook_id, next_at FROM webhook_deliveries WHERE status = 'pending'
        ORDER BY webhook_id, next_at LIMIT 1
    )
    UNION ALL
    SELECT following.webhook_id, following.next_at FROM first CROSS JOIN LATERAL (
        SELECT webhook_id, next_at FROM webhook_deliveries
        WHERE status = 'pending' AND webhook_id > first.webhook_id
        ORDER BY webhook_id, next_at LIMIT 1
    ) AS following
)
SELECT w.id, w.owner_id, w.failures > 0 AS is_failing,
    extract(epoch FROM first.next_at - now())::float8 AS due_in_s
FROM first JOIN webhooks AS w ON w.id = first.webhook_id JOIN users AS u ON u.id = w.owner_id::bigint
WHERE first.next_at < now() + make_interval(secs => $1) AND w.status = 'active' AND u.status = 'active'
ORDER BY row_number() OVER (PARTITION BY w.owner_id ORDER BY first.next_at), first.next_at LIMIT $2

-- name: claim_deliveries
-- An attempt counts when it begins, so that one that ends its process counts, too. Until $3 seconds have passed
-- no other gateway makes the next one. Of webhooks that have ended since the look, nothing.
WITH chosen AS (
    SELECT due.id FROM unnest($1::uuid[], $2::int[]) AS wanted (webhook_id, most)
    JOIN webhooks AS active ON active.id = wanted.webhook_id AND active.status = 'active'
    CROSS JOIN LATERAL (
        SELECT id FROM webhook_deliveries
        WHERE webhook_id = wanted.webhook_id AND status = 'pending' AND next_at <= now()
        ORDER BY next_at LIMIT wanted.most FOR NO KEY UPDATE SKIP LOCKED
    ) AS due
)
UPDATE webhook_deliveries AS d SET attempts = d.attempts + 1, next_at = now() + make_interval(secs => $3)
FROM chosen, webhooks AS w
WHERE d.id = chosen.id AND w.id = d.webhook_id
RETURNING d.id, d.webhook_id, d.owner_id, d.type, d.payload, d.attempts, w.made_by, w.maker_scopes, w.url, w.secret,
    w.sealed_with,
    CASE WHEN w.previous_until > now() THEN w.previous_secret END AS previous_secret

-- name: record_attempt
-- Of the claim with this number only: a later holder has recorded its own.
UPDATE webhook_deliveries SET
    status = $3, next_at = coalesce(now() + make_interval(secs => $4), next_at),
    finished_at = CASE WHEN $3 = 'pending' THEN NULL ELSE now() END,
    history = (history || $5::text) [greatest(1, cardinality(history) + 2 - $6::int):]
WHERE id = $1 AND attempts = $2 AND status = 'pending'

-- name: give_back_deliveries
-- Attempts that a stop has cut off, by their numbers: they do not count, and are due now.
UPDATE webhook_deliveries AS d SET attempts = d.attempts - 1, next_at = now()
FROM unnest($1::uuid[], $2::int[]) AS given (id, attempts)
WHERE d.id = given.id AND d.attempts = given.attempts AND d.status = 'pending'

-- name: withdraw_claimed_deliveries
-- Instead of an attempt, which does not count. Nothing is withdrawn for users who were disabled: it waits.
UPDATE webhook_deliveries AS d SET
    status = 'withdrawn', finished_at = now(), attempts = d.attempts - 1,
    history = (d.history || $2::text) [greatest(1, cardinality(d.history) + 2 - $3::int):]
FROM users AS u
WHERE d.id = ANY ($1::uuid[]) AND u.id = d.owner_id::bigint AND u.status = 'active'

-- name: note_success
-- Of an attempt at this URL, as below: the webhook may have another one by now.
UPDATE webhooks SET
    failures = 0, last_success_at = now()
WHERE id = $1 AND url = $2 AND (failures > 0 OR last_success_at IS NULL OR last_success_at < now() - interval '10 s')

-- name: note_failure
UPDATE webhooks SET failures = failures + 1, last_failure_at = now(), last_failure = $3
WHERE id = $1 AND url = $2

-- name: disable_webhook
UPDATE webhooks SET status = 'disabled', disabled_reason = $3, revision = revision + 1
WHERE id = $1 AND url = $2 AND status = 'active'

-- name: lock_disabled_webhook
SELECT id FROM webhooks WHERE id = $1 AND status = 'disabled' FOR NO KEY UPDATE

-- name: withdraw_deliveries
UPDATE webhook_deliveries SET status = 'withdrawn', finished_at = now() WHERE id IN (
    SELECT id FROM webhook_deliveries WHERE webhook_id = $1 AND status = 'pending'
    ORDER BY next_at LIMIT $2 FOR NO KEY UPDATE
)

-- name: find_webhooks_to_withdraw_from
-- Disabled webhooks for which something waits: from one webhook that something waits for to the next.
WITH RECURSIVE waiting AS (
    (SELECT webhook_id FROM webhook_deliveries WHERE status = 'pending' ORDER BY webhook_id LIMIT 1)
    UNION ALL
    SELECT following.webhook_id FROM waiting CROSS JOIN LATERAL (
        SELECT webhook_id FROM webhook_deliveries
        WHERE status = 'pending' AND webhook_id > waiting.webhook_id
        ORDER BY webhook_id LIMIT 1
    ) AS following
)
SELECT w.id FROM waiting JOIN webhooks AS w ON w.id = waiting.webhook_id WHERE w.status = 'disabled' LIMIT $1

-- name: find_matching_deliveries
-- Those among the $4 newest deliveries in these statuses before the id $3 that match; how many were examined, and which
-- was the last. The status is a range and not equal to something, as only the index of webhooks has this order then: by
-- the primary key, a status that few are in would be looked for in all of them.
WITH examined AS MATERIALIZED (
    SELECT found.id, found.type, found.created_at
    FROM unnest($2::text[]) AS wanted (status)
    CROSS JOIN LATERAL (
        SELECT d.id, d.type, d.created_at FROM webhook_deliveries AS d
        WHERE d.webhook_id = $1 AND d.status >= wanted.status AND (d.status, d.id) < (wanted.status, $3::uuid)
        ORDER BY d.status DESC, d.id DESC LIMIT $4
    ) AS found
    ORDER BY found.id DESC LIMIT $4
)
SELECT (SELECT count(*) FROM examined) AS examined, (SELECT min(id::text)::uuid FROM examined) AS last, ARRAY(
    SELECT id FROM examined
    WHERE ($5::text[] IS NULL OR type = ANY ($5))
        AND ($6::timestamptz IS NULL OR created_at > $6)
        AND ($7::timestamptz IS NULL OR created_at < $7)
    ORDER BY id DESC LIMIT $8
) AS ids

-- name: list_deliveries
SELECT id, type, status, attempts, created_at, finished_at, next_at FROM webhook_deliveries
WHERE id = ANY ($1::uuid[]) ORDER BY id DESC

-- name: find_delivery
SELECT * FROM webhook_deliveries WHERE id = $1 AND webhook_id = $2

-- name: find_deliveries_to_replay
-- As in a list, but the oldest first, behind the id $3.
WITH examined AS MATERIALIZED (
    SELECT found.id, found.type, found.created_at
    FROM unnest($2::text[]) AS wanted (status)
    CROSS JOIN LATERAL (
        SELECT d.id, d.type, d.created_at FROM webhook_deliveries AS d
        WHERE d.webhook_id = $1 AND d.status <= wanted.status AND (d.status, d.id) > (wanted.status, $3::uuid)
        ORDER BY d.status, d.id LIMIT $4
    ) AS found
    ORDER BY found.id LIMIT $4
)
SELECT (SELECT count(*) FROM examined) AS examined, (SELECT max(id::text)::uuid FROM examined) AS last, ARRAY(
    SELECT id FROM examined
    WHERE type = ANY ($5::text[])
        AND ($6::timestamptz IS NULL OR created_at > $6)
        AND ($7::timestamptz IS NULL OR created_at < $7)
) AS ids

-- name: replay_deliveries
UPDATE webhook_deliveries SET status = 'pending', attempts = 0, next_at = now(), finished_at = NULL
WHERE id = ANY ($1::uuid[]) AND status <> 'pending'

-- name: replay_delivery
UPDATE webhook_deliveries SET status = 'pending', attempts = 0, next_at = now(), finished_at = NULL
WHERE id = $1 AND status <> 'pending'
RETURNING *

-- name: withdraw_deliveries_of_disabled_users
-- What has been due for $1 days and was not sent, because its user is disabled.
UPDATE webhook_deliveries SET status = 'withdrawn', finished_at = now() WHERE id IN (
    SELECT overdue.id FROM users AS u
    JOIN webhooks AS w ON w.owner_id = u.id::text AND w.status = 'active'
    CROSS JOIN LATERAL (
        SELECT id FROM webhook_deliveries
        WHERE webhook_id = w.id AND status = 'pending' AND next_at < now() - make_interval(days => $1)
        ORDER BY next_at LIMIT $2 FOR NO KEY UPDATE SKIP LOCKED
    ) AS overdue
    WHERE u.status = 'disabled' LIMIT $2
)

-- name: remove_finished_deliveries
DELETE FROM webhook_deliveries WHERE id IN (
    SELECT id FROM webhook_deliveries WHERE finished_at < now() - make_interval(days => $1)
    ORDER BY finished_at LIMIT $2 FOR UPDATE SKIP LOCKED
)

-- name: remove_deliveries_of_deleted
DELETE FROM webhook_deliveries WHERE id IN (
    SELECT d.id FROM webhooks AS w JOIN webhook_deliveries AS d ON d.webhook_id = w.id
    WHERE w.status = 'deleted' LIMIT $1 FOR UPDATE OF d SKIP LOCKED
)

-- name: remove_deleted_webhooks
DELETE FROM webhooks AS w
WHERE status = 'deleted' AND NOT EXISTS (SELECT 1 FROM webhook_deliveries WHERE webhook_id = w.id)
