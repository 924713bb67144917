-- name: lock_domain_owner
-- Until the transaction ends, no other one creates domains of this owner.
SELECT pg_advisory_xact_lock(hashtextextended('domains of ' || $1, 0))

-- name: find_domain_of_request
SELECT * FROM domains WHERE owner_id = $1 AND request_key = $2

-- name: find_domain_of_name
SELECT * FROM domains WHERE owner_id = $1 AND name = $2

-- name: count_domains_of_owner
SELECT count(*) FROM domains WHERE owner_id = $1

-- name: insert_domain
INSERT INTO domains (id, owner_id, name, token, return_path_host, request_key, created_at, check_at)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8)
RETURNING *

-- name: insert_domain_keys
INSERT INTO domain_keys (domain_id, selector, algorithm, sealed_key, public_record, created_at)
SELECT $1, *, $6 FROM unnest($2::text[], $3::text[], $4::bytea[], $5::text[])

-- name: find_domain
SELECT * FROM domains WHERE id = $1 AND owner_id = $2

-- name: lock_domain
SELECT * FROM domains WHERE id = $1 FOR UPDATE

-- name: list_domains
-- A page of an owner's domains, newest first; a filter that is NULL lets everything through.
SELECT * FROM domains
WHERE owner_id = $1 AND ($2::uuid IS NULL OR id < $2) AND ($3::text IS NULL OR name = $3)
    AND ($4::text[] IS NULL OR status = ANY($4))
    AND ($5::timestamptz IS NULL OR created_at > $5) AND ($6::timestamptz IS NULL OR created_at < $6)
ORDER BY id DESC LIMIT $7

-- name: list_domain_keys
SELECT domain_id, selector, algorithm, state, public_record, created_at, active_at, retire_at FROM domain_keys
WHERE domain_id = ANY($1::uuid[])
ORDER BY created_at DESC, selector

-- name: delete_domain
DELETE FROM domains WHERE id = $1

-- name: take_due_domains
-- One of each owner, so that an owner with many domains does not keep others waiting. No other process takes them
-- for `$2` seconds.
UPDATE domains SET check_at = now() + $2 * interval '1 second'
WHERE check_at <= now() AND id IN (
    SELECT id FROM (
        SELECT DISTINCT ON (owner_id) id, check_at FROM domains
        WHERE check_at <= now()
        ORDER BY owner_id, check_at
    ) AS first_of_owner
    ORDER BY check_at LIMIT $1
)
RETURNING *

-- name: save_domain
UPDATE domains
SET status = $2, version = $3, verified_at = $4, checked_at = $5, missing_since = $6, check_at = $7,
    findings = $8, lost_records = $9, rotation_key = $10
WHERE id = $1

-- name: remove_domain_keys
-- Removes all keys but those that are kept.
DELETE FROM domain_keys WHERE domain_id = $1 AND selector <> ALL($2::text[])

-- name: change_domain_keys
UPDATE domain_keys SET state = changed.state, active_at = changed.active_at, retire_at = changed.retire_at
FROM unnest($2::text[], $3::text[], $4::timestamptz[], $5::timestamptz[])
    AS changed (selector, state, active_at, retire_at)
WHERE domain_keys.domain_id = $1 AND domain_keys.selector = changed.selector

-- name: count_domains
SELECT CASE WHEN lost_records > 0 THEN 'losing' ELSE status END AS state, count(*) FROM domains GROUP BY 1

-- name: oldest_domain_check
-- For how many seconds the next check has been overdue.
SELECT coalesce(extract(epoch FROM now() - min(check_at)), 0)::float8 FROM domains WHERE check_at IS NOT NULL

-- name: find_senders
-- The verified domains among these (owner, domain), and those in `$3` of any owner; each with its active keys, and
-- with its return path host while that record points here: it was found, and not missed since.
SELECT domains.owner_id, domains.name, domain_keys.selector, domain_keys.algorithm, domain_keys.sealed_key,
    CASE WHEN found ->> 'last_found_at' IS NOT NULL AND found ->> 'state' NOT IN ('missing', 'different')
        THEN return_path_host
    END AS return_path_host
FROM domains
CROSS JOIN LATERAL (SELECT findings -> ('return_path ' || return_path_host) AS found) AS looked
LEFT JOIN domain_keys ON domain_keys.domain_id = domains.id AND domain_keys.state = 'active'
WHERE domains.status = 'verified' AND domains.name = ANY($2::text[])
    AND (domains.name = ANY($3::text[]) OR (domains.owner_id, domains.name) IN (
        SELECT * FROM unnest($1::text[], $2::text[])
    ))
ORDER BY domains.created_at, domains.id, domain_keys.algorithm DESC

-- name: list_sealed_keys
-- A page of all keys, in a fixed order.
SELECT domain_id, selector, sealed_key FROM domain_keys
WHERE (domain_id, selector) > ($1::uuid, $2::text)
ORDER BY domain_id, selector LIMIT $3

-- name: change_sealed_key
UPDATE domain_keys SET sealed_key = $3 WHERE domain_id = $1 AND selector = $2
