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
        AND (kept_until IS NULL OR kept_until <= now())
    ORDER BY ended_at LIMIT $1
    FOR UPDATE SKIP LOCKED
), removed AS (
    DELETE FROM attachments USING done WHERE attachments.email_id = done.id
)
UPDATE emails SET stripped = 1 FROM done WHERE emails.id = done.id

-- name: remove_content
-- Bodies, headers and attachments of mails that ended longer ago than their owners chose: $2 days by default, $3 at most.
WITH done AS (
    SELECT due.id
    FROM owners_of_emails AS owner LEFT JOIN retention_periods USING (owner_id)
    CROSS JOIN LATERAL (
        SELECT id FROM emails
        WHERE emails.owner_id = owner.owner_id AND stripped < 2
            AND ended_at <= now() - least(coalesce(content_days, $2), $3) * interval '1 day'
            AND (kept_until IS NULL OR kept_until <= now())
        ORDER BY ended_at LIMIT $1
        FOR UPDATE SKIP LOCKED
    ) AS due
    LIMIT $1
), removed AS (
    DELETE FROM attachments USING done WHERE attachments.email_id = done.id
)
UPDATE emails SET stripped = 2, letter = '{}', text_body = NULL, html_body = NULL, template_data = NULL
FROM done
WHERE emails.id = done.id

-- name: remove_emails
-- Mails that ended longer ago than their owners chose, with their recipients and attempts: $2 days by default, $3 at
-- most, and never before their content ($4, $5). Recipients are locked before their mails, as everywhere: a bounce or
-- an outcome has its recipient first.
WITH old AS (
    SELECT due.id, due.ended_at
    FROM owners_of_emails AS owner LEFT JOIN retention_periods USING (owner_id)
    CROSS JOIN LATERAL (
        SELECT id, ended_at FROM emails
        WHERE emails.owner_id = owner.owner_id AND stripped = 2
            AND ended_at <= now() - interval '1 day' * greatest(
                least(coalesce(record_days, $2), $3), least(coalesce(content_days, $4), $5)
            )
        ORDER BY ended_at LIMIT $1
    ) AS due
    LIMIT $1
), locked AS (
    SELECT email_id FROM recipients WHERE email_id IN (SELECT id FROM old) ORDER BY email_id, position FOR UPDATE
)
DELETE FROM emails
WHERE id = ANY(ARRAY(SELECT DISTINCT old.id FROM old LEFT JOIN locked ON locked.email_id = old.id))
    -- Unless it has changed while this statement waited for the locks on its recipients.
    AND stripped = 2 AND ended_at <= (SELECT max(ended_at) FROM old)

-- name: removal_delay
-- The most days for which content that is to be removed next has been past its owner's period ($1 by default, $2 at
-- most); negative: for which it still has time.
SELECT max(
    extract(epoch FROM now() - first.ended_at) / 86400 - least(coalesce(content_days, $1), $2)
)::float8
FROM owners_of_emails AS owner LEFT JOIN retention_periods USING (owner_id)
CROSS JOIN LATERAL (
    SELECT ended_at FROM emails
    WHERE emails.owner_id = owner.owner_id AND stripped < 2 AND ended_at IS NOT NULL
        AND (kept_until IS NULL OR kept_until <= now())
    ORDER BY ended_at LIMIT 1
) AS first
