-- Addresses that get no mail of an owner, by stream; `all` is every stream. An address is stored as it is compared.
CREATE TABLE suppressions (
    id uuid PRIMARY KEY,
    owner_id text NOT NULL,
    address text NOT NULL,
    stream text NOT NULL,
    origin text NOT NULL,
    reason text NOT NULL,
    -- The mail whose failure brought it about; its record may be gone.
    email_id uuid,
    created_at timestamptz NOT NULL DEFAULT now(),
    expires_at timestamptz,
    UNIQUE (owner_id, address, stream)
);
CREATE INDEX suppressions_of_owner ON suppressions (owner_id, id);
CREATE INDEX suppressions_expiry ON suppressions (expires_at) WHERE expires_at IS NOT NULL;

-- What speaks against an address. A mail counts once, however often its failure is reported.
CREATE TABLE address_failures (
    owner_id text NOT NULL,
    address text NOT NULL,
    stream text NOT NULL,
    email_id uuid NOT NULL,
    kind text NOT NULL,
    origin text NOT NULL,
    at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (owner_id, address, stream, email_id)
);
CREATE INDEX address_failures_age ON address_failures (at);
