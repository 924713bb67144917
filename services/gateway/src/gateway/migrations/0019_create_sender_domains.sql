-- What email has told of the domains that owners may send from, so that a mail can be judged without asking it.
-- One that is not verified, or removed, is kept for a while: older news of it must not count.
CREATE TABLE sender_domains (
    domain_id uuid PRIMARY KEY,
    owner_id text NOT NULL,
    name text NOT NULL,
    is_verified boolean NOT NULL,
    version bigint NOT NULL,
    changed_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX sender_domains_verified ON sender_domains (owner_id, name) WHERE is_verified;
CREATE INDEX sender_domains_gone ON sender_domains (changed_at) WHERE NOT is_verified;
