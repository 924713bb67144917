-- name: exclude_readers
-- Not in a mode that waits for reads without a lock, such as those of a backup.
LOCK TABLE lost_rights IN EXCLUSIVE MODE

-- name: note_loss
-- An earlier loss that left all of what this one leaves says nothing more: an owner has few rows.
WITH covered AS (
    DELETE FROM lost_rights WHERE owner_id = $1 AND lost_at < $2 AND scopes_left @> $3::text[]
)
INSERT INTO lost_rights (owner_id, lost_at, scopes_left) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING

-- name: losses_of
-- The lock on the table that comes with FOR KEY SHARE makes this wait for a loss that is being noted, and a loss that is
-- noted later wait for the work that was read before: it finds the batches that this work becomes.
SELECT owner_id, lost_at, scopes_left FROM lost_rights WHERE owner_id = ANY($1::text[]) FOR KEY SHARE
