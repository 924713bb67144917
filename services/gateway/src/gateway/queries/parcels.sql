-- name: lock_parcels_room
-- One request at a time measures and keeps.
SELECT pg_advisory_xact_lock(hashtext('gateway.parcels'))

-- name: measure_parcels
-- What an owner has and what all have; a small one counts $2 bytes, which bounds the number, too.
SELECT
    coalesce(sum(greatest(size_bytes, $2)) FILTER (WHERE owner_id = $1), 0)::bigint AS own,
    coalesce(sum(greatest(size_bytes, $2)), 0)::bigint AS total,
    coalesce(greatest(0, extract(epoch FROM now() - min(created_at))), 0)::float8 AS oldest_s
FROM waiting_parcels

-- name: keep_parcel
WITH parcel AS (
    INSERT INTO waiting_parcels (id, owner_id, mail_count, content, size_bytes) VALUES ($1, $2, $3, $4, $5)
    RETURNING id
)
INSERT INTO waiting_parcel_messages (
    parcel_id, position, message_id, exchange, routing_key, message_type, headers, body, messages
)
SELECT id, place, message_id, exchange, routing_key, message_type, headers, body, messages
FROM parcel CROSS JOIN unnest(
    $6::uuid[], $7::text[], $8::text[], $9::text[], $10::jsonb[], $11::bytea[], $12::int[]
) WITH ORDINALITY AS given (message_id, exchange, routing_key, message_type, headers, body, messages, place)

-- name: note_waiting_mails
INSERT INTO waiting_mails (email_id, owner_id, sender, subject, tags, recipients, send_at, expires_at)
SELECT
    email_id, owner_id, sender, subject,
    ARRAY(SELECT jsonb_array_elements_text(tags)), ARRAY(SELECT jsonb_array_elements_text(recipients)),
    send_at, expires_at
FROM unnest(
    $1::uuid[], $2::text[], $3::text[], $4::text[], $5::jsonb[], $6::jsonb[], $7::timestamptz[], $8::timestamptz[]
) AS mail (email_id, owner_id, sender, subject, tags, recipients, send_at, expires_at)

-- name: find_last_examined_mail
-- The last of the $3 newest mails before the id $2; null when there are fewer. A page examines no older ones: its filter
-- may match none of very many.
SELECT email_id FROM waiting_mails
WHERE owner_id = $1 AND email_id < coalesce($2::uuid, 'ffffffff-ffff-ffff-ffff-ffffffffffff')
ORDER BY email_id DESC OFFSET $3 - 1 LIMIT 1

-- name: list_waiting_mails
-- Mails that wait here, are on their way to email, or have ended here: what ended there has no reason. With $7 only those
-- that wait (true) or do not (false). Those before the id $8 and from $9 on; each is looked up by itself, as a join may
-- read all acceptances.
SELECT
    email_id AS id, accepted.status, sender, subject, tags, accepted_at, send_at, expires_at,
    cardinality(recipients) AS recipient_count, waiting
FROM waiting_mails
CROSS JOIN LATERAL (
    SELECT status, reason, accepted_at FROM acceptances WHERE id = email_id LIMIT 1
) AS accepted
CROSS JOIN LATERAL (
    SELECT EXISTS (SELECT FROM waiting_parcel_messages WHERE message_id = email_id OFFSET 0) AS waiting
) AS place
WHERE waiting_mails.owner_id = $1
    AND email_id < coalesce($8::uuid, 'ffffffff-ffff-ffff-ffff-ffffffffffff')
    AND email_id >= coalesce($9::uuid, '00000000-0000-0000-0000-000000000000')
    AND (accepted.status = 'queued' OR (accepted.status IN ('cancelled', 'failed') AND reason IS NOT NULL))
    AND (cardinality($2::text[]) = 0 OR accepted.status = ANY($2))
    AND ($3::timestamptz IS NULL OR accepted_at > $3)
    AND ($4::timestamptz IS NULL OR accepted_at < $4)
    AND ($5::text IS NULL OR $5 = ANY(tags))
    AND ($6::text IS NULL OR $6 = ANY(recipients))
    AND ($7::boolean IS NULL OR waiting = $7)
ORDER BY email_id DESC LIMIT $10

-- name: count_waiting_mails
-- Those that wait here or have ended here, from the id $2 on; those on their way are as unknown as any other that was
-- accepted just now.
SELECT accepted.status, count(*) AS count
FROM waiting_mails
CROSS JOIN LATERAL (SELECT status, reason FROM acceptances WHERE id = email_id LIMIT 1) AS accepted
WHERE waiting_mails.owner_id = $1 AND email_id >= coalesce($2::uuid, '00000000-0000-0000-0000-000000000000')
    AND (
        (
            accepted.status = 'queued'
            AND EXISTS (SELECT FROM waiting_parcel_messages WHERE message_id = email_id OFFSET 0)
        )
        OR (accepted.status IN ('cancelled', 'failed') AND reason IS NOT NULL)
    )
GROUP BY accepted.status

-- name: claim_parcels
-- Up to $3 that are due, up to $2 of each owner, owners in turn from $1 on; they are due again when the lease of $4
-- seconds ends. Owners are found one by one: of one of them there may be very many.
WITH RECURSIVE owners AS (
    SELECT min(owner_id) AS owner_id FROM waiting_parcels
    UNION ALL
    SELECT (SELECT min(owner_id) FROM waiting_parcels WHERE owner_id > owners.owner_id)
    FROM owners WHERE owner_id IS NOT NULL
), chosen AS (
    SELECT due.id
    FROM (SELECT owner_id FROM owners WHERE owner_id IS NOT NULL ORDER BY owner_id <= $1, owner_id) AS turn
    CROSS JOIN LATERAL (
        SELECT id FROM waiting_parcels
        WHERE waiting_parcels.owner_id = turn.owner_id AND due_at <= now()
        ORDER BY due_at LIMIT $2 FOR UPDATE SKIP LOCKED
    ) AS due
    LIMIT $3
)
UPDATE waiting_parcels SET due_at = now() + make_interval(secs => $4), attempts = attempts + 1
FROM chosen WHERE waiting_parcels.id = chosen.id
RETURNING waiting_parcels.id, owner_id, mail_count, content

-- name: postpone_parcels
UPDATE waiting_parcels SET due_at = now() + least(30, 0.5 * 2 ^ least(attempts, 6)) * interval '1 s'
WHERE id = ANY($1::uuid[])

-- name: lock_parcel
-- First in every change of a parcel: the next statement sees what the one before has left.
SELECT id FROM waiting_parcels WHERE id = $1 FOR UPDATE

-- name: lock_parcel_of_mail
SELECT id FROM waiting_parcels
WHERE owner_id = $2 AND id = (SELECT parcel_id FROM waiting_parcel_messages WHERE message_id = $1)
FOR UPDATE

-- name: drop_waiting_mail
-- The last mail takes its parcel along.
WITH gone AS (
    DELETE FROM waiting_parcel_messages WHERE parcel_id = $1 AND message_id = $2
    RETURNING octet_length(body) AS size_bytes
), smaller AS (
    UPDATE waiting_parcels
    SET mail_count = mail_count - 1, size_bytes = waiting_parcels.size_bytes - gone.size_bytes
    FROM gone WHERE id = $1 AND mail_count > 1
), empty AS (
    DELETE FROM waiting_parcels USING gone WHERE id = $1 AND mail_count = 1
)
SELECT count(*) FROM gone

-- name: read_waiting_mail
SELECT body FROM waiting_parcel_messages WHERE parcel_id = $1 AND message_id = $2

-- name: read_waiting_parcel
SELECT content FROM waiting_parcels WHERE id = $1

-- name: change_waiting_mail
WITH shown AS (
    UPDATE waiting_mails SET send_at = $4, expires_at = $5 WHERE email_id = $2
)
UPDATE waiting_parcel_messages SET body = $3 WHERE parcel_id = $1 AND message_id = $2

-- name: drop_parcel
WITH gone AS (
    DELETE FROM waiting_parcels WHERE id = $1 RETURNING id
)
SELECT message_id FROM waiting_parcel_messages JOIN gone ON gone.id = parcel_id

-- name: end_waiting_mails
UPDATE acceptances SET status = $2, reason = $3, changed_at = $4 WHERE id = ANY($1::uuid[]) AND status = 'queued'

-- name: release_parcel
-- Its messages leave, and nothing of it stays; of a repetition there is nothing left to do. Not while a backup holds the
-- lock 84251: it may have looked at email before the bytes came there.
WITH gone AS (
    DELETE FROM waiting_parcels WHERE id = $1 AND (SELECT pg_try_advisory_xact_lock_shared(84251)) RETURNING id
)
INSERT INTO outbox (message_id, exchange, routing_key, message_type, headers, body, messages)
SELECT message_id, exchange, routing_key, message_type, headers, body, messages
FROM waiting_parcel_messages JOIN gone ON gone.id = parcel_id
ORDER BY position
