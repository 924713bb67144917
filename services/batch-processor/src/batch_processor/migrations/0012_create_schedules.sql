-- Schedules. `due_at` is the next due time and `fire_at` the same with its jitter; both are NULL while the
-- schedule is paused. `template` is JSON text, as its owner wrote it. `revision` counts the owner's changes.
CREATE TABLE schedules (
    id uuid PRIMARY KEY,
    owner_id text NOT NULL,
    made_by text NOT NULL,
    request_key text,
    name text NOT NULL,
    cron text NOT NULL,
    time_zone text NOT NULL,
    overlap text NOT NULL CHECK (overlap IN ('skip', 'queue', 'allow')),
    missed text NOT NULL CHECK (missed IN ('skip', 'once', 'all')),
    catch_up_window_s int NOT NULL,
    jitter_s int NOT NULL,
    kind text NOT NULL CHECK (kind IN ('batch', 'task')),
    operation text NOT NULL,
    template text NOT NULL,
    revision int NOT NULL DEFAULT 1,
    created_at timestamptz NOT NULL DEFAULT now(),
    changed_at timestamptz NOT NULL DEFAULT now(),
    is_paused boolean NOT NULL DEFAULT false,
    paused_reason text,
    due_at timestamptz,
    fire_at timestamptz
);
CREATE INDEX schedules_owner ON schedules (owner_id, id);
CREATE UNIQUE INDEX schedules_request ON schedules (owner_id, request_key);
CREATE INDEX schedules_due ON schedules (fire_at) WHERE fire_at IS NOT NULL;

-- Owners, one row each: schedules of one owner are made one after the other.
CREATE TABLE schedule_owners (
    owner_id text PRIMARY KEY
);

-- Runs. The id is that of the batch or task that a run makes. A due time runs once, whoever finds it due.
-- The state of what was made is read from `batches`; `outcome` is what it ended with.
CREATE TABLE schedule_runs (
    id uuid PRIMARY KEY,
    schedule_id uuid NOT NULL REFERENCES schedules ON DELETE CASCADE,
    owner_id text NOT NULL,
    due_at timestamptz NOT NULL,
    trigger text NOT NULL CHECK (trigger IN ('due', 'catch-up', 'manual')),
    status text NOT NULL CHECK (status IN ('waiting', 'fired', 'ended', 'refused', 'skipped', 'missed')),
    request_key text,
    created_at timestamptz NOT NULL DEFAULT now(),
    fired_at timestamptz,
    ended_at timestamptz,
    outcome text,
    code text,
    detail text,
    UNIQUE (schedule_id, due_at)
);
CREATE INDEX schedule_runs_newest ON schedule_runs (schedule_id, id);
CREATE UNIQUE INDEX schedule_runs_request ON schedule_runs (schedule_id, request_key);
CREATE INDEX schedule_runs_fired ON schedule_runs (schedule_id, id) WHERE status = 'fired';
CREATE INDEX schedule_runs_waiting ON schedule_runs (schedule_id, id) WHERE status = 'waiting';
CREATE INDEX schedule_runs_ended ON schedule_runs (ended_at) WHERE ended_at IS NOT NULL;
CREATE INDEX schedules_with_request ON schedules (created_at) WHERE request_key IS NOT NULL;
CREATE INDEX schedule_runs_with_request ON schedule_runs (created_at) WHERE request_key IS NOT NULL;
