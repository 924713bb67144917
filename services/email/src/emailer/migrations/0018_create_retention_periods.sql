-- For how long an owner's mails are kept after their end; null: as long as the settings say. Rows are never removed:
-- versions count up.
CREATE TABLE retention_periods (
    owner_id text PRIMARY KEY,
    content_days double precision,
    record_days double precision,
    version bigint NOT NULL DEFAULT 1,
    changed_at timestamptz NOT NULL DEFAULT now()
);

-- Each owner's mails in the order of their ends, in place of all mails in that order, which would be chosen where one
-- owner has nearly all of them: it passes those that others keep for longer.
CREATE INDEX emails_with_content_of_owner ON emails (owner_id, ended_at) WHERE stripped < 2 AND ended_at IS NOT NULL;
CREATE INDEX emails_without_content_of_owner ON emails (owner_id, ended_at) WHERE stripped = 2;
DROP INDEX emails_with_content;
DROP INDEX emails_without_content;

-- Everybody who has mails, found one by one by an index: of one owner there may be very many.
CREATE VIEW owners_of_emails AS
WITH RECURSIVE owners AS (
    SELECT min(owner_id) AS owner_id FROM emails
    UNION ALL
    SELECT (SELECT min(emails.owner_id) FROM emails WHERE emails.owner_id > owners.owner_id)
    FROM owners WHERE owner_id IS NOT NULL
)
SELECT owner_id FROM owners WHERE owner_id IS NOT NULL;
