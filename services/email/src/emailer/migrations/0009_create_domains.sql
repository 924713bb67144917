-- Domains that their owners send from. Two owners may have the same one, each with a proof of their own.
CREATE TABLE domains (
    id uuid PRIMARY KEY,
    owner_id text NOT NULL,
    name text NOT NULL,
    status text NOT NULL DEFAULT 'pending',
    -- Counts every change, a look at the records included.
    version bigint NOT NULL DEFAULT 1,
    -- What the record says that shows the ownership.
    token text NOT NULL,
    return_path_host text NOT NULL,
    -- What the last look at each record found.
    findings json NOT NULL DEFAULT '{}',
    -- How many records of a verified domain were right once, and are not any more.
    lost_records smallint NOT NULL DEFAULT 0,
    -- The keys of the requests that made the domain, and its newest DKIM keys.
    request_key text,
    rotation_key text,
    created_at timestamptz NOT NULL DEFAULT now(),
    verified_at timestamptz,
    checked_at timestamptz,
    -- Since when the proof of ownership of a verified domain is gone.
    missing_since timestamptz,
    -- When the records are looked at next; null: when somebody asks for it.
    check_at timestamptz,
    UNIQUE (owner_id, name)
);
CREATE INDEX domains_due ON domains (check_at) WHERE check_at IS NOT NULL;
CREATE INDEX domains_verified ON domains (name) WHERE status = 'verified';

CREATE TABLE domain_keys (
    domain_id uuid NOT NULL REFERENCES domains ON DELETE CASCADE,
    selector text NOT NULL,
    algorithm text NOT NULL,
    state text NOT NULL DEFAULT 'pending',
    -- Encrypted under EMAIL_SECRETS_KEY.
    sealed_key bytea NOT NULL,
    public_record text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    active_at timestamptz,
    retire_at timestamptz,
    PRIMARY KEY (domain_id, selector)
);
