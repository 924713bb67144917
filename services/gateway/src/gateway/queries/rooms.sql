-- name: insert_room
INSERT INTO rooms (name, created_by) VALUES ($1, $2)
ON CONFLICT (name) DO NOTHING
RETURNING name, epoch::text, last_offset, created_by, created_at

-- name: get_room
SELECT name, epoch::text, last_offset, created_by, created_at FROM rooms WHERE name = $1

-- name: list_rooms
SELECT name, epoch::text, last_offset, created_by, created_at FROM rooms
WHERE name > $1 AND ($3::timestamptz IS NULL OR created_at > $3) AND ($4::timestamptz IS NULL OR created_at < $4)
ORDER BY name LIMIT $2

-- name: insert_message
-- The room's row gives the next offset and, being locked, the order of the messages. A message that the
-- user has sent under this id before is returned as it is.
WITH known AS (
    SELECT "offset", user_id, user_name, data, created_at FROM chat_messages
    WHERE room = $1 AND user_id = $2 AND sender_id = $5
), next AS (
    UPDATE rooms SET last_offset = last_offset + 1
    WHERE name = $1 AND NOT EXISTS (SELECT FROM known)
    RETURNING name, last_offset
), inserted AS (
    INSERT INTO chat_messages (room, "offset", user_id, user_name, data, sender_id)
    SELECT name, last_offset, $2, $3, $4::jsonb, $5 FROM next
    RETURNING "offset", user_id, user_name, data, created_at
)
SELECT * FROM inserted UNION ALL SELECT * FROM known

-- name: list_messages_after
SELECT "offset", user_id, user_name, data, created_at FROM chat_messages
WHERE room = $1 AND "offset" > $2 ORDER BY "offset" LIMIT $3

-- name: list_messages_before
SELECT "offset", user_id, user_name, data, created_at FROM chat_messages
WHERE room = $1 AND "offset" < $2 ORDER BY "offset" DESC LIMIT $3
