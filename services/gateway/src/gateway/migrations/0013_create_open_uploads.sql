-- Uploads that come in several requests: how far each is, and the line at its end that is not complete.
-- `about` is what seals the batch, as JSON; `writer` is the request that appends, as long as it says so.
CREATE TABLE open_uploads (
    batch_id uuid PRIMARY KEY,
    owner_id text NOT NULL,
    about text NOT NULL,
    bytes bigint NOT NULL DEFAULT 0,
    items int NOT NULL DEFAULT 0,
    lines int NOT NULL DEFAULT 0,
    rest bytea NOT NULL DEFAULT '',
    writer uuid,
    appended_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX open_uploads_appended ON open_uploads (appended_at);
