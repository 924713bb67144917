-- What an administrator has paused: all work of an operation, or of an owner.
CREATE TABLE pauses (
    kind text NOT NULL CHECK (kind IN ('operation', 'owner')),
    name text NOT NULL,
    reason text NOT NULL DEFAULT '',
    paused_by text NOT NULL,
    paused_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (kind, name)
);
