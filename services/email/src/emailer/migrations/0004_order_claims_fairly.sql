-- Who gets a turn: claims go round over stream, owner and destination domain of what is ready.
ALTER TABLE emails ADD COLUMN stream text NOT NULL DEFAULT 'transactional';
ALTER TABLE recipients ADD COLUMN stream text NOT NULL DEFAULT 'transactional';
ALTER TABLE recipients ADD COLUMN owner_id text NOT NULL DEFAULT '';
ALTER TABLE recipients ADD COLUMN domain text NOT NULL DEFAULT '';
-- Due, and nobody's yet. Rows of the release before are made ready when they are due, and get owner and domain then.
ALTER TABLE recipients ADD COLUMN ready boolean NOT NULL DEFAULT false;
CREATE INDEX recipients_ready ON recipients (stream, owner_id, domain, due_at) WHERE ready;
CREATE INDEX recipients_waiting ON recipients (due_at) WHERE due_at IS NOT NULL AND NOT ready;
DROP INDEX recipients_due;
