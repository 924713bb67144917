-- How many mails an owner has in each status costs the same to tell however many there are. Triggers keep it, so that
-- what the release before writes is counted, too.
CREATE TABLE email_counts (
    owner_id text NOT NULL,
    status text NOT NULL,
    count bigint NOT NULL,
    PRIMARY KEY (owner_id, status)
);
-- What has changed since it was last added up. Rows are only inserted here: no writer waits for another.
CREATE TABLE email_count_changes (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    owner_id text NOT NULL,
    status text NOT NULL,
    change int NOT NULL
);
CREATE INDEX email_count_changes_of_owner ON email_count_changes (owner_id);

CREATE FUNCTION note_stored_emails() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO email_count_changes (owner_id, status, change)
    SELECT owner_id, status, count(*) FROM stored GROUP BY owner_id, status;
    RETURN NULL;
END $$;
CREATE FUNCTION note_changed_emails() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO email_count_changes (owner_id, status, change)
    SELECT owner_id, status, sum(change)
    FROM (
        SELECT owner_id, status, -1 AS change FROM earlier
        UNION ALL
        SELECT owner_id, status, 1 FROM later
    ) AS changes
    GROUP BY owner_id, status
    HAVING sum(change) <> 0;
    RETURN NULL;
END $$;
CREATE FUNCTION note_removed_emails() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO email_count_changes (owner_id, status, change)
    SELECT owner_id, status, -count(*) FROM removed GROUP BY owner_id, status;
    RETURN NULL;
END $$;
CREATE TRIGGER emails_stored AFTER INSERT ON emails
    REFERENCING NEW TABLE AS stored FOR EACH STATEMENT EXECUTE FUNCTION note_stored_emails();
CREATE TRIGGER emails_changed AFTER UPDATE ON emails
    REFERENCING OLD TABLE AS earlier NEW TABLE AS later FOR EACH STATEMENT EXECUTE FUNCTION note_changed_emails();
CREATE TRIGGER emails_removed AFTER DELETE ON emails
    REFERENCING OLD TABLE AS removed FOR EACH STATEMENT EXECUTE FUNCTION note_removed_emails();
INSERT INTO email_counts SELECT owner_id, status, count(*) FROM emails GROUP BY owner_id, status;

-- When the last recipient's outcome was final; from then on what is kept of a mail has its time.
ALTER TABLE emails ADD COLUMN ended_at timestamptz;
-- What has been removed: 0 nothing, 1 the attachments, 2 all content.
ALTER TABLE emails ADD COLUMN stripped smallint NOT NULL DEFAULT 0;
-- Rows of the release before have no end yet; these are few once they were found.
CREATE INDEX emails_without_end ON emails (id)
    WHERE ended_at IS NULL
        AND status = ANY('{delivered,partially_delivered,failed,cancelled,expired}');
CREATE INDEX emails_with_files ON emails (ended_at)
    WHERE stripped = 0 AND attachment_count > 0 AND status = ANY('{delivered,cancelled}');
CREATE INDEX emails_with_content ON emails (ended_at) WHERE stripped < 2 AND ended_at IS NOT NULL;
CREATE INDEX emails_without_content ON emails (ended_at) WHERE stripped = 2;
