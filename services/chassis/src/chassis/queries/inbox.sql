-- name: claim_messages
-- Returns the ids that this consumer has not handled before.
INSERT INTO inbox (message_id, consumer)
SELECT message_id, $2 FROM unnest($1::uuid[]) AS message_id
ON CONFLICT DO NOTHING
RETURNING message_id

-- name: clean_inbox
DELETE FROM inbox WHERE (message_id, consumer) IN (
    SELECT message_id, consumer FROM inbox WHERE handled_at < now() - make_interval(days => $1) LIMIT $2
)
