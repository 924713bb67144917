-- The scopes that were left to owners who lost others. Work that was accepted before and arrives later loses these, too.
CREATE TABLE lost_rights (
    owner_id text NOT NULL,
    lost_at timestamptz NOT NULL,
    scopes_left text[] NOT NULL,
    PRIMARY KEY (owner_id, lost_at)
);
-- When the owner of a batch had its scopes: at the request of its last retry; without one, at its acceptance.
ALTER TABLE batches ADD COLUMN scoped_at timestamptz;
