CREATE TABLE rooms (
    name text PRIMARY KEY,
    epoch uuid NOT NULL DEFAULT gen_random_uuid(),
    last_offset bigint NOT NULL DEFAULT 0,
    created_by text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE chat_messages (
    room text NOT NULL REFERENCES rooms,
    "offset" bigint NOT NULL,
    user_id text NOT NULL,
    user_name text NOT NULL,
    data jsonb NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (room, "offset")
);

INSERT INTO rooms (name, created_by) VALUES ('lobby', 'system');
