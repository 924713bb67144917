-- Webhooks of owners, and the deliveries of events to them. A deleted webhook is removed with its deliveries in
-- small steps.
CREATE TABLE webhooks (
    id uuid PRIMARY KEY,
    owner_id text NOT NULL,
    url text NOT NULL,
    events text[] NOT NULL,
    description text NOT NULL,
    status text NOT NULL DEFAULT 'active',
    disabled_reason text,
    -- The credential with which it was made or last changed, and the scopes of an access token.
    made_by text NOT NULL,
    maker_scopes text[] NOT NULL,
    -- Encrypted; `sealed_with` names the pepper.
    secret bytea NOT NULL,
    previous_secret bytea,
    previous_until timestamptz,
    sealed_with text NOT NULL,
    revision bigint NOT NULL DEFAULT 1,
    failures integer NOT NULL DEFAULT 0,
    last_success_at timestamptz,
    last_failure_at timestamptz,
    last_failure text,
    created_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX webhooks_of_owner ON webhooks (owner_id, id) WHERE status <> 'deleted';
CREATE INDEX webhooks_deleted ON webhooks (id) WHERE status = 'deleted';

CREATE TABLE webhook_deliveries (
    id uuid PRIMARY KEY,
    webhook_id uuid NOT NULL REFERENCES webhooks,
    owner_id text NOT NULL,
    type text NOT NULL,
    payload text NOT NULL,
    status text NOT NULL DEFAULT 'pending',
    -- Of the present round: a replay begins a new one.
    attempts integer NOT NULL DEFAULT 0,
    -- One JSON document each, the last of all rounds.
    history text[] NOT NULL DEFAULT '{}',
    created_at timestamptz NOT NULL DEFAULT now(),
    next_at timestamptz NOT NULL DEFAULT now(),
    finished_at timestamptz
);
CREATE INDEX webhook_deliveries_due ON webhook_deliveries (webhook_id, next_at) WHERE status = 'pending';
CREATE INDEX webhook_deliveries_listed ON webhook_deliveries (webhook_id, status, id);
CREATE INDEX webhook_deliveries_finished ON webhook_deliveries (finished_at) WHERE finished_at IS NOT NULL;
