-- A private room is for its members; of a public one nothing is stored here.
ALTER TABLE rooms ADD COLUMN is_private boolean NOT NULL DEFAULT false;
CREATE TABLE room_members (
    room text NOT NULL REFERENCES rooms,
    user_id bigint NOT NULL REFERENCES users,
    role text NOT NULL CHECK (role IN ('reader', 'writer', 'manager')),
    added_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (room, user_id)
);
CREATE INDEX room_members_user ON room_members (user_id);
