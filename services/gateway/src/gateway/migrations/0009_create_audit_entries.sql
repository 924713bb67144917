CREATE TABLE audit_entries (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at timestamptz NOT NULL DEFAULT clock_timestamp(),
    -- NULL for what was done on the host, by nobody who has a key.
    user_id bigint,
    user_name text,
    key_id text,
    action text NOT NULL,
    target text NOT NULL,
    before jsonb,
    after jsonb,
    request_id text
);
CREATE INDEX audit_entries_at ON audit_entries USING brin (at);
CREATE INDEX audit_entries_user ON audit_entries (user_id, id);
CREATE INDEX audit_entries_key ON audit_entries (key_id, id);
CREATE INDEX audit_entries_target ON audit_entries (target, id);
CREATE INDEX audit_entries_action ON audit_entries (action, id);
