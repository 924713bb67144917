-- Price alerts. Owners are those of the gateway; each counts its firings.
CREATE TABLE alert_owners (
    owner_id text PRIMARY KEY,
    epoch uuid NOT NULL DEFAULT gen_random_uuid(),
    last_offset bigint NOT NULL DEFAULT 0
);

-- `side` is where the watched value was when it mattered last: 1 over the threshold, -1 under it, 0 not known.
-- `version` counts its changes, each of which happens once, whoever tries it. `day` is the trading day of the
-- last one. `changed_xid` is the transaction that made or deleted the alert, by which its watcher finds it.
CREATE TABLE alerts (
    id uuid PRIMARY KEY,
    owner_id text NOT NULL REFERENCES alert_owners,
    made_by text NOT NULL,
    request_key text,
    symbol text NOT NULL REFERENCES instruments,
    kind text NOT NULL CHECK (kind IN ('above', 'below', 'crosses', 'change_percent')),
    threshold numeric NOT NULL,
    emails text[] NOT NULL,
    once boolean NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    expires_at timestamptz,
    deleted_at timestamptz,
    side smallint NOT NULL CHECK (side BETWEEN -1 AND 1),
    day date,
    version int NOT NULL DEFAULT 0,
    fired_count int NOT NULL DEFAULT 0,
    fired_at timestamptz,
    fired_price numeric,
    changed_xid bigint NOT NULL DEFAULT pg_current_xact_id()::text::bigint
);
CREATE INDEX alerts_owner ON alerts (owner_id, id);
CREATE UNIQUE INDEX alerts_request ON alerts (owner_id, request_key);
CREATE INDEX alerts_changed ON alerts (changed_xid);
CREATE INDEX alerts_watched ON alerts (id) WHERE deleted_at IS NULL AND NOT (once AND fired_count > 0);
CREATE INDEX alerts_over ON alerts (coalesce(deleted_at, expires_at, fired_at));

-- They outlive their alerts: who was away reads them later.
CREATE TABLE alert_firings (
    id uuid PRIMARY KEY,
    owner_id text NOT NULL REFERENCES alert_owners,
    number bigint NOT NULL,
    alert_id uuid NOT NULL,
    symbol text NOT NULL,
    kind text NOT NULL,
    threshold numeric NOT NULL,
    price numeric NOT NULL,
    change_percent numeric,
    as_of timestamptz NOT NULL,
    source text NOT NULL,
    simulated boolean NOT NULL,
    UNIQUE (owner_id, number)
);
CREATE INDEX alert_firings_age ON alert_firings (as_of);
