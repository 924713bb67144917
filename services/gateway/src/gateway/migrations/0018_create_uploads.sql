-- Files that mails may name; their bytes are in email. What is here lets a mail be accepted while email is away.
CREATE TABLE uploads (
    id uuid PRIMARY KEY,
    owner_id text NOT NULL,
    size_bytes bigint NOT NULL,
    sha256 text NOT NULL,
    created_at timestamptz NOT NULL,
    expires_at timestamptz NOT NULL
);
CREATE INDEX uploads_by_end ON uploads (expires_at);
