-- Backups that tasks ask for. An agent outside the services makes them, with the rights that they do not have: it notes
-- here when it begins one, and what came of it.
CREATE TABLE backup_requests (
    id uuid PRIMARY KEY,
    requested_at timestamptz NOT NULL DEFAULT now(),
    began_at timestamptz,
    ended_at timestamptz,
    file text,
    bytes bigint,
    is_encrypted boolean,
    error text
);
CREATE UNIQUE INDEX backup_requests_open ON backup_requests ((true)) WHERE ended_at IS NULL;
-- Who makes a backup holds this lock until its outcome is noted; the server releases it when the agent dies.
CREATE VIEW backups_at_work AS
SELECT pid FROM pg_locks
WHERE locktype = 'advisory' AND classid = 0 AND objid = 84252 AND objsubid = 1 AND granted
    AND database = (SELECT oid FROM pg_database WHERE datname = current_database());
