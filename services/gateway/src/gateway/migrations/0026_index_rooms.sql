-- A list of rooms reads the public ones and those of its reader, and no others.
CREATE INDEX rooms_public ON rooms (name) WHERE NOT is_private;
CREATE INDEX room_members_rooms ON room_members (user_id, room);
CREATE INDEX rooms_creator ON rooms (created_by);
