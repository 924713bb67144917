-- A mail that nobody got, and none of whose recipients failed, was summed up as failed. Which ones these are is written
-- down here, and each is mended by the release that knows the word: the one before could not read it.
CREATE TABLE emails_to_sum_up (email_id uuid PRIMARY KEY);
INSERT INTO emails_to_sum_up
SELECT id FROM emails
WHERE status = 'failed'
    AND EXISTS (SELECT FROM recipients WHERE recipients.email_id = emails.id)
    AND NOT EXISTS (SELECT FROM recipients WHERE recipients.email_id = emails.id AND recipients.status = 'failed');

CREATE INDEX emails_ended_without_time ON emails (id)
    WHERE ended_at IS NULL
        AND status = ANY('{delivered,partially_delivered,failed,suppressed,cancelled,expired}');
DROP INDEX emails_without_end;
