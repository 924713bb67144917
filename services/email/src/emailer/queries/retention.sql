-- name: fold_counts
-- Adds up to $1 changes to the counts.
WITH taken AS (
    DELETE FROM email_count_changes
    WHERE id = ANY(ARRAY(SELECT id FROM email_count_changes ORDER BY id LIMIT $1 FOR UPDATE SKIP LOCKED))
    RETURNING owner_id, status, change
), folded AS (
    INSERT INTO email_counts (owner_id, status, count)
    SELECT owner_id, status, sum(change) FROM taken GROUP BY owner_id, status ORDER BY owner_id, status
    ON CONFLICT (owner_id, status) DO UPDATE SET count = email_counts.count + excluded.count
)
SELECT count(*) FROM taken

-- name: count_emails
SELECT status, sum(count)::bigint AS count
FROM (
    SELECT status, count FROM email_counts WHERE owner_id = $1
    UNION ALL
    SELECT status, change FROM email_count_changes WHERE owner_id = $1
) AS counted
GROUP BY status
HAVING sum(count) > 0

-- name: sum_up_anew
-- Corrects mails that the previous release marked as failed though no recipient failed, as `states.summed_up` does.
WITH due AS (
    DELETE FROM emails_to_sum_up
    WHERE email_id = ANY(ARRAY(SELECT email_id FROM emails_to_sum_up LIMIT $1 FOR UPDATE SKIP LOCKED))
    RETURNING email_id
), sums AS (
    SELECT email_id, array_agg(recipients.status) AS statuses FROM recipients JOIN due USING (email_id) GROUP BY email_id
)
UPDATE emails
SET status = CASE
    WHEN 'expired' = ANY(statuses) THEN 'expired'
    WHEN 'cancelled' = ANY(statuses) THEN 'cancelled'
    ELSE 'suppressed'
END
FROM sums
WHERE emails.id = sums.email_id AND emails.status = 'failed' AND statuses <@ '{expired,cancelled,suppressed}'::text[]

-- name: note_ends
-- For mails that ended under the previous release: their retention begins now.
WITH ended AS (
    SELECT id FROM emails
    WHERE ended_at IS NULL AND status = ANY('{delivered,partially_delivered,failed,suppressed,cancelled,expired}')
    ORDER BY id LIMIT $1
    FOR UPDATE SKIP LOCKED
)
UPDATE emails SET ended_at = now() FROM ended WHERE emails.id = ended.id

-- name: remove_attachments
-- Of mails that were delivered or cancelled. A mail that failed may be sent again, so it keeps them.
WITH done AS (
    SELECT id FROM emails
    WHERE stripped = 0 AND attachment_count > 0 AND status = ANY('{delivered,cancelled}') AND ended_at <= now()
    ORDER BY ended_at LIMIT $1
    FOR UPDATE SKIP LOCKED
), removed AS (
    DELETE FROM attachments USING done WHERE attachments.email_id = done.id
)
UPDATE emails SET stripped = 1 FROM done WHERE emails.id = done.id

-- name: remove_content
-- Bodies, headers and attachments of mails that ended more than $2 seconds ago.
WITH done AS (
    SELECT id FROM emails
    WHERE stripped < 2 AND ended_at <= now() - $2 * interval '1 second'
    ORDER BY ended_at LIMIT $1
    FOR UPDATE SKIP LOCKED
), removed AS (
    DELETE FROM attachments USING done WHERE attachments.email_id = done.id
)
UPDATE emails SET stripped = 2, letter = '{}', text_body = NULL, html_body = NULL, template_data = NULL
FROM done
WHERE emails.id = done.id

-- name: remove_emails
-- Mails that ended more than $2 seconds ago, with their recipients and attempts. Recipients are locked before their
-- mails, as everywhere: a bounce or an outcome has its recipient first.
WITH old AS (
    SELECT id FROM emails
    WHERE stripped = 2 AND ended_at <= now() - $2 * interval '1 second'
    ORDER BY ended_at LIMIT $1
), locked AS (
    SELECT email_id FROM recipients WHERE email_id IN (SELECT id FROM old) ORDER BY email_id, position FOR UPDATE
)
DELETE FROM emails
WHERE id = ANY(ARRAY(SELECT DISTINCT old.id FROM old LEFT JOIN locked ON locked.email_id = old.id))
    -- Unless it has changed while this statement waited for the locks on its recipients.
    AND stripped = 2 AND ended_at <= now() - $2 * interval '1 second'

-- name: oldest_content
-- The seconds since the end of the mail whose content is to be removed next.
SELECT coalesce(extract(epoch FROM now() - min(ended_at)), 0)::float8 FROM (
    SELECT ended_at FROM emails WHERE stripped < 2 AND ended_at IS NOT NULL ORDER BY ended_at LIMIT 1
) AS first
