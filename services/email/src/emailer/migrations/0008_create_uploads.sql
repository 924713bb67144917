-- Files that mails name instead of carrying them. A row counts against its owner before its bytes come.
CREATE TABLE uploads (
    id uuid PRIMARY KEY,
    owner_id text NOT NULL,
    -- Of the permission to send the bytes; null once somebody sends them.
    token_hash bytea,
    -- What it may have, and what it has once it is complete.
    size_bytes bigint NOT NULL,
    sha256 bytea,
    completed_at timestamptz,
    -- Until when mails may name it; before it is complete, until when it must be.
    expires_at timestamptz NOT NULL,
    is_used boolean NOT NULL DEFAULT false
);
CREATE INDEX uploads_of_owner ON uploads (owner_id);
CREATE INDEX uploads_by_end ON uploads (expires_at);

CREATE TABLE upload_parts (
    upload_id uuid NOT NULL REFERENCES uploads ON DELETE CASCADE,
    position int NOT NULL,
    content bytea NOT NULL,
    PRIMARY KEY (upload_id, position)
);
-- Most files are compressed already.
ALTER TABLE upload_parts ALTER COLUMN content SET STORAGE EXTERNAL;

-- With it the content is that of the upload, which stays as long as a mail needs it.
ALTER TABLE attachments ADD COLUMN upload_id uuid REFERENCES uploads;
CREATE INDEX attachments_of_upload ON attachments (upload_id) WHERE upload_id IS NOT NULL;
