-- name: find_suppressed
-- One index probe for each address.
SELECT asked.owner_id, asked.stream, asked.address, found.origin, found.reason, found.created_at
FROM unnest($1::text[], $2::text[], $3::text[]) AS asked (owner_id, stream, address)
CROSS JOIN LATERAL (
    SELECT origin, reason, created_at FROM suppressions
    WHERE suppressions.owner_id = asked.owner_id AND suppressions.address = asked.address
        AND suppressions.stream IN (asked.stream, 'all') AND (expires_at IS NULL OR expires_at > now())
    ORDER BY suppressions.stream
    LIMIT 1
) AS found

-- name: lock_suppressions
-- Suppressions of one owner are added one after the other, so that their number is exact.
SELECT pg_advisory_xact_lock(hashtextextended('suppressions:' || $1, 0))

-- name: count_suppressions
-- Counts up to $2, including those that have ended and are not yet removed.
SELECT count(*) FROM (SELECT FROM suppressions WHERE owner_id = $1 LIMIT $2) AS counted

-- name: count_known
SELECT count(*) FROM unnest($2::text[], $3::text[]) AS given (address, stream)
WHERE EXISTS (
    SELECT FROM suppressions
    WHERE owner_id = $1 AND suppressions.address = given.address AND suppressions.stream = given.stream
)

-- name: add_suppressions
-- An entry replaces an existing one; an ended one begins anew.
INSERT INTO suppressions AS earlier (id, owner_id, address, stream, origin, reason, expires_at)
SELECT * FROM unnest($1::uuid[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::timestamptz[])
ON CONFLICT (owner_id, address, stream) DO UPDATE SET
    id = CASE WHEN earlier.expires_at <= now() THEN excluded.id ELSE earlier.id END,
    created_at = CASE WHEN earlier.expires_at <= now() THEN now() ELSE earlier.created_at END,
    origin = excluded.origin, reason = excluded.reason, email_id = NULL, expires_at = excluded.expires_at
RETURNING id, address, stream, origin, reason, email_id, created_at, expires_at

-- name: suppress
-- A suppression by failures does not replace a current one.
INSERT INTO suppressions AS earlier (id, owner_id, address, stream, origin, reason, email_id, expires_at)
SELECT * FROM unnest(
    $1::uuid[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::uuid[], $8::timestamptz[]
)
ON CONFLICT (owner_id, address, stream) DO UPDATE SET
    id = excluded.id, created_at = now(), origin = excluded.origin, reason = excluded.reason,
    email_id = excluded.email_id, expires_at = excluded.expires_at
WHERE earlier.expires_at <= now()
RETURNING origin

-- name: list_suppressions
SELECT id, address, stream, origin, reason, email_id, created_at, expires_at
FROM suppressions
WHERE owner_id = $1 AND (expires_at IS NULL OR expires_at > now())
    AND ($2::text IS NULL OR address = $2)
    AND (cardinality($3::text[]) = 0 OR stream = ANY($3))
    AND (cardinality($4::text[]) = 0 OR origin = ANY($4))
    AND ($5::timestamptz IS NULL OR created_at > $5)
    AND ($6::timestamptz IS NULL OR created_at < $6)
    AND ($7::uuid IS NULL OR id < $7)
ORDER BY id DESC
LIMIT $8

-- name: count_matching_suppressions
SELECT count(*) FROM suppressions
WHERE owner_id = $1 AND (expires_at IS NULL OR expires_at > now())
    AND ($2::text IS NULL OR address = $2)
    AND (cardinality($3::text[]) = 0 OR stream = ANY($3))
    AND (cardinality($4::text[]) = 0 OR origin = ANY($4))
    AND ($5::timestamptz IS NULL OR created_at > $5)
    AND ($6::timestamptz IS NULL OR created_at < $6)

-- name: get_suppression
SELECT id, address, stream, origin, reason, email_id, created_at, expires_at
FROM suppressions
WHERE id = $1 AND owner_id = $2 AND (expires_at IS NULL OR expires_at > now())

-- name: lift_suppressions
-- The failures are removed, too: with them, the next failure would suppress the address again.
WITH lifted AS (
    DELETE FROM suppressions WHERE id = ANY($1::uuid[]) AND owner_id = $2
    RETURNING address, stream
), forgotten AS (
    DELETE FROM address_failures USING lifted
    WHERE address_failures.owner_id = $2 AND address_failures.address = lifted.address
        AND lifted.stream IN (address_failures.stream, 'all')
)
SELECT count(*) FROM lifted

-- name: note_failures
-- A mail that failed temporarily, and then permanently, counts as the latter.
INSERT INTO address_failures AS earlier (owner_id, address, stream, email_id, kind, origin)
SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::uuid[], $5::text[], $6::text[])
ON CONFLICT (owner_id, address, stream, email_id) DO UPDATE
SET kind = excluded.kind, origin = excluded.origin, at = now()
WHERE earlier.kind = 'soft'

-- name: count_failures
SELECT asked.owner_id, asked.stream, asked.address, counted.hard, counted.soft
FROM unnest($1::text[], $2::text[], $3::text[]) AS asked (owner_id, stream, address)
CROSS JOIN LATERAL (
    SELECT
        count(*) FILTER (WHERE kind = 'hard' AND at > now() - $4 * interval '1 day') AS hard,
        count(*) FILTER (WHERE kind = 'soft' AND at > now() - $5 * interval '1 day') AS soft
    FROM address_failures
    WHERE address_failures.owner_id = asked.owner_id AND address_failures.address = asked.address
        AND address_failures.stream = asked.stream
) AS counted

-- name: find_forgivable
-- Of addresses for which a mail was accepted: those with suppressions or failures of the given origins.
SELECT asked.owner_id, asked.stream, asked.address
FROM unnest($1::text[], $2::text[], $3::text[]) AS asked (owner_id, stream, address)
WHERE EXISTS (
    SELECT FROM suppressions
    WHERE suppressions.owner_id = asked.owner_id AND suppressions.address = asked.address
        AND suppressions.stream = asked.stream AND suppressions.origin = ANY($4::text[])
) OR EXISTS (
    SELECT FROM address_failures
    WHERE address_failures.owner_id = asked.owner_id AND address_failures.address = asked.address
        AND address_failures.stream = asked.stream AND address_failures.origin = ANY($4)
)

-- name: forgive
WITH asked AS (
    SELECT * FROM unnest($1::text[], $2::text[], $3::text[]) AS asked (owner_id, stream, address)
), lifted AS (
    DELETE FROM suppressions USING asked
    WHERE suppressions.owner_id = asked.owner_id AND suppressions.address = asked.address
        AND suppressions.stream = asked.stream AND suppressions.origin = ANY($4::text[])
    RETURNING suppressions.id
), forgotten AS (
    DELETE FROM address_failures USING asked
    WHERE address_failures.owner_id = asked.owner_id AND address_failures.address = asked.address
        AND address_failures.stream = asked.stream AND address_failures.origin = ANY($4)
)
SELECT count(*) FROM lifted

-- name: remove_suppressions
DELETE FROM suppressions
WHERE id = ANY(ARRAY(
    SELECT id FROM suppressions WHERE expires_at <= now() ORDER BY expires_at LIMIT $1 FOR UPDATE SKIP LOCKED
))

-- name: remove_failures
DELETE FROM address_failures
WHERE (owner_id, address, stream, email_id) IN (
    SELECT owner_id, address, stream, email_id FROM address_failures
    WHERE at <= now() - $2 * interval '1 day'
    ORDER BY at LIMIT $1
    FOR UPDATE SKIP LOCKED
)
