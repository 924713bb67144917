ALTER TABLE users ADD COLUMN status text NOT NULL DEFAULT 'active' CHECK (status IN ('active', 'disabled'));

-- The key that made this one, which it cannot outlive. While a rotation overlaps, the secret before it works
-- until `previous_until`.
ALTER TABLE api_keys
    ADD COLUMN parent_id text REFERENCES api_keys,
    ADD COLUMN rotated_at timestamptz,
    ADD COLUMN previous_digest bytea,
    ADD COLUMN previous_until timestamptz;
CREATE INDEX api_keys_parent ON api_keys (parent_id);

-- What a key and all of its ancestors leave of its life. Keys are made with a bounded number of ancestors.
CREATE FUNCTION key_life(text) RETURNS TABLE (ends_at timestamptz, is_revoked boolean, ancestors int)
LANGUAGE sql STABLE AS $$
    WITH RECURSIVE line AS (
        SELECT parent_id, expires_at, revoked_at FROM api_keys WHERE id = $1
        UNION ALL
        SELECT parent.parent_id, parent.expires_at, parent.revoked_at
        FROM line JOIN api_keys AS parent ON parent.id = line.parent_id
    )
    SELECT min(expires_at), coalesce(bool_or(revoked_at IS NOT NULL), false), greatest(count(*) - 1, 0)::int FROM line
$$;
