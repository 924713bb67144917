-- name: note_sender_domain
-- Events may arrive late, twice, or out of order: the highest version counts.
INSERT INTO sender_domains (domain_id, owner_id, name, is_verified, version) VALUES ($1, $2, $3, $4, $5)
ON CONFLICT (domain_id) DO UPDATE
SET is_verified = excluded.is_verified, version = excluded.version, changed_at = now()
WHERE excluded.version > sender_domains.version

-- name: forget_sender_domains
DELETE FROM sender_domains WHERE domain_id IN (
    SELECT domain_id FROM sender_domains
    WHERE NOT is_verified AND changed_at < now() - make_interval(days => $1)
    LIMIT $2 FOR UPDATE SKIP LOCKED
)

-- name: find_sender_domains
SELECT name FROM sender_domains WHERE owner_id = $1 AND name = ANY($2::text[]) AND is_verified
