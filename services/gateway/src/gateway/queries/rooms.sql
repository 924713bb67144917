-- name: insert_room
-- The creator of a private room is its first manager.
WITH made AS (
    INSERT INTO rooms (name, created_by, is_private) VALUES ($1, $2::bigint::text, $3)
    ON CONFLICT (name) DO NOTHING
    RETURNING name, epoch::text, last_offset, created_by, created_at, is_private
), manager AS (
    INSERT INTO room_members (room, user_id, role) SELECT name, $2, 'manager' FROM made WHERE is_private
)
SELECT *, CASE WHEN is_private THEN 'manager' END AS role FROM made

-- name: get_room
-- A private room is visible to its members only.
SELECT r.name, r.epoch::text, r.last_offset, r.created_by, r.created_at, r.is_private, m.role
FROM rooms r LEFT JOIN room_members m ON m.room = r.name AND m.user_id = $2
WHERE r.name = $1 AND (NOT r.is_private OR m.role IS NOT NULL)

-- name: find_last_examined_room
-- The last of the $2 rooms behind the name $1, among the public ones or the user's own; null when both have fewer. A page
-- of rooms made at some time examines none behind it: there may be very many, of which none was made then.
SELECT min(name) FROM (
    (SELECT name FROM rooms WHERE NOT is_private AND name > $1 ORDER BY name OFFSET $2 - 1 LIMIT 1)
    UNION ALL
    (SELECT room FROM room_members WHERE user_id = $3 AND room > $1 ORDER BY room OFFSET $2 - 1 LIMIT 1)
) AS ends

-- name: list_rooms
-- Public rooms and the user's private ones apart, so that nobody reads past the private rooms of others. Up to the name
-- $6, if it is given.
SELECT * FROM (
    (
        SELECT name, epoch::text, last_offset, created_by, created_at, is_private, NULL AS role
        FROM rooms
        WHERE NOT is_private AND name > $1 AND name <= coalesce($6::text, (SELECT max(name) FROM rooms))
            AND ($3::timestamptz IS NULL OR created_at > $3) AND ($4::timestamptz IS NULL OR created_at < $4)
        ORDER BY name LIMIT $2
    ) UNION ALL (
        SELECT r.name, r.epoch::text, r.last_offset, r.created_by, r.created_at, r.is_private, m.role
        FROM room_members AS m JOIN rooms AS r ON r.name = m.room AND r.is_private
        WHERE m.user_id = $5 AND m.room > $1 AND m.room <= coalesce($6::text, (SELECT max(name) FROM rooms))
            AND ($3::timestamptz IS NULL OR r.created_at > $3) AND ($4::timestamptz IS NULL OR r.created_at < $4)
        ORDER BY m.room LIMIT $2
    )
) AS visible
ORDER BY name LIMIT $2

-- name: lock_rooms_of
-- So that two requests at once cannot make one room too many.
SELECT pg_advisory_xact_lock(hashtextextended('rooms of ' || $1::bigint, 0))

-- name: count_rooms_of
-- How many rooms a user has created, up to $2.
SELECT count(*) FROM (SELECT FROM rooms WHERE created_by = $1::bigint::text LIMIT $2) AS own

-- name: lock_room
SELECT FROM rooms WHERE name = $1 FOR UPDATE

-- name: put_member
INSERT INTO room_members (room, user_id, role) VALUES ($1, $2, $3)
ON CONFLICT (room, user_id) DO UPDATE SET role = excluded.role
RETURNING user_id, role, added_at

-- name: get_member
SELECT user_id, role, added_at FROM room_members WHERE room = $1 AND user_id = $2

-- name: delete_member
DELETE FROM room_members WHERE room = $1 AND user_id = $2

-- name: count_members
SELECT count(*) AS members, count(*) FILTER (WHERE role = 'manager') AS managers
FROM room_members WHERE room = $1

-- name: list_members
SELECT user_id, role, added_at FROM room_members
WHERE room = $1 AND user_id > $2 ORDER BY user_id LIMIT $3

-- name: list_former_members
-- Of the users $2 in the rooms $1, at the same places, those that are no members.
SELECT room, user_id FROM unnest($1::text[], $2::bigint[]) AS known (room, user_id)
WHERE NOT EXISTS (SELECT FROM room_members AS m WHERE m.room = known.room AND m.user_id = known.user_id)

-- name: list_rooms_ahead
-- Of the rooms $1, those with messages after the offsets $2, at the same places.
SELECT r.name, r.last_offset
FROM unnest($1::text[], $2::bigint[]) AS shown (name, last_offset) JOIN rooms AS r ON r.name = shown.name
WHERE r.last_offset > shown.last_offset

-- name: insert_message
-- The row of the room has the next offset, and its lock orders the messages. A message that the user has sent
-- before with this id is returned unchanged. Readers cannot post to a private room.
WITH writable AS (
    SELECT r.name FROM rooms r
    WHERE r.name = $1 AND (
        NOT r.is_private
        OR EXISTS (
            SELECT FROM room_members m
            WHERE m.room = r.name AND m.user_id = $2::text::bigint AND m.role <> 'reader'
        )
    )
), known AS (
    SELECT "offset", user_id, user_name, coalesce(written::text, data::text) AS data, created_at, client
    FROM chat_messages WHERE room = (SELECT name FROM writable) AND user_id = $2 AND sender_id = $5
), next AS (
    UPDATE rooms SET last_offset = last_offset + 1
    WHERE name = (SELECT name FROM writable) AND NOT EXISTS (SELECT FROM known)
    RETURNING name, last_offset
), inserted AS (
    INSERT INTO chat_messages (room, "offset", user_id, user_name, data, written, sender_id, client)
    SELECT name, last_offset, $2, $3, $4::text::jsonb, $4::text::json, $5, $6 FROM next
    RETURNING "offset", user_id, user_name, written::text AS data, created_at, client
)
SELECT * FROM inserted UNION ALL SELECT * FROM known

-- name: list_messages_after
-- As many of the first $3 as have $4 bytes together.
SELECT "offset", user_id, user_name, data, created_at, client FROM (
    SELECT *, sum(octet_length(data)) OVER (ORDER BY "offset") AS bytes FROM (
        SELECT "offset", user_id, user_name, coalesce(written::text, data::text) AS data, created_at, client
        FROM chat_messages WHERE room = $1 AND "offset" > $2 ORDER BY "offset" LIMIT $3
    ) AS found
) AS counted WHERE bytes <= $4 ORDER BY "offset"

-- name: list_messages_before
-- As many of the first $3 as have $4 bytes together.
SELECT "offset", user_id, user_name, data, created_at, client FROM (
    SELECT *, sum(octet_length(data)) OVER (ORDER BY "offset" DESC) AS bytes FROM (
        SELECT "offset", user_id, user_name, coalesce(written::text, data::text) AS data, created_at, client
        FROM chat_messages WHERE room = $1 AND "offset" < $2 ORDER BY "offset" DESC LIMIT $3
    ) AS found
) AS counted WHERE bytes <= $4 ORDER BY "offset" DESC

-- name: remove_old_messages
-- Of each of the next $2 rooms behind the name $1, up to $4 messages that are older than $3 days, the oldest first. Returns
-- the name of the last of these rooms, null without any, and how many messages there were.
WITH next_rooms AS (
    SELECT name FROM rooms WHERE name > $1 ORDER BY name LIMIT $2
), old AS (
    SELECT oldest.room, oldest."offset" FROM next_rooms CROSS JOIN LATERAL (
        SELECT room, "offset", created_at FROM chat_messages WHERE room = next_rooms.name ORDER BY "offset" LIMIT $4
    ) AS oldest
    WHERE oldest.created_at < now() - make_interval(days => $3)
), removed AS (
    DELETE FROM chat_messages AS message USING old
    WHERE message.room = old.room AND message."offset" = old."offset"
    RETURNING message.room
)
SELECT (SELECT max(name) FROM next_rooms) AS last, (SELECT count(*) FROM removed) AS removed
