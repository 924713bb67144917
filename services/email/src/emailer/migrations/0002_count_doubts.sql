-- How often the relay may have taken a mail without saying so: it is repeated only so often.
ALTER TABLE recipients ADD COLUMN doubts smallint NOT NULL DEFAULT 0;
-- Beside each recipient, so that those whose time is over are found however many others are due.
-- Rows that the release before writes have none; they are looked at when they are due.
ALTER TABLE recipients ADD COLUMN expires_at timestamptz;
UPDATE recipients SET expires_at = emails.expires_at
FROM emails
WHERE emails.id = recipients.email_id AND recipients.due_at IS NOT NULL;
CREATE INDEX recipients_expiry ON recipients (expires_at) WHERE due_at IS NOT NULL;
-- Those that wait for a decision are few.
CREATE INDEX recipients_held ON recipients (email_id) WHERE status = 'held';
