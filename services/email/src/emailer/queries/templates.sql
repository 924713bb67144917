-- name: take_turn_of_templates
SELECT pg_advisory_xact_lock(hashtextextended('templates of ' || $1, 0))

-- name: lock_template
SELECT newest, deleted_at IS NOT NULL AS is_deleted, created_at FROM templates
WHERE owner_id = $1 AND name = $2
FOR UPDATE

-- name: count_templates
-- The numbers of usable templates, of all stored ones, and of their versions.
SELECT count(*) FILTER (WHERE deleted_at IS NULL) AS usable, count(*) AS stored,
    (SELECT count(*) FROM template_versions WHERE owner_id = $1) AS versions
FROM templates WHERE owner_id = $1

-- name: put_template
-- A deleted template of the same name becomes a new one, whose version numbers continue.
INSERT INTO templates (owner_id, name, newest) VALUES ($1, $2, 1)
ON CONFLICT (owner_id, name) DO UPDATE
SET newest = templates.newest + 1, changed_at = now(), deleted_at = NULL,
    created_at = CASE WHEN templates.deleted_at IS NULL THEN templates.created_at ELSE now() END
RETURNING newest

-- name: insert_template_version
INSERT INTO template_versions (owner_id, name, version, source, request_key) VALUES ($1, $2, $3, $4, $5)
RETURNING created_at

-- name: find_template_by_key
SELECT v.name, v.version, v.source, v.created_at, t.newest
FROM template_versions AS v JOIN templates AS t USING (owner_id, name)
WHERE v.owner_id = $1 AND v.request_key = $2 AND v.created_at >= now() - interval '24 hours'

-- name: forget_old_template_key
UPDATE template_versions SET request_key = NULL WHERE owner_id = $1 AND request_key = $2

-- name: find_template
SELECT v.name, v.version, v.source, v.created_at, t.newest
FROM templates AS t JOIN template_versions AS v USING (owner_id, name)
WHERE t.owner_id = $1 AND t.name = $2 AND t.deleted_at IS NULL AND v.version = coalesce($3, t.newest)

-- name: list_templates
SELECT name, newest, created_at, changed_at FROM templates
WHERE owner_id = $1 AND name > $2 AND deleted_at IS NULL
ORDER BY name LIMIT $3

-- name: list_template_versions
SELECT v.name, v.version, v.source, v.created_at, t.newest
FROM templates AS t JOIN template_versions AS v USING (owner_id, name)
WHERE t.owner_id = $1 AND t.name = $2 AND t.deleted_at IS NULL AND ($3::int IS NULL OR v.version < $3)
ORDER BY v.version DESC LIMIT $4

-- name: delete_template
UPDATE templates SET deleted_at = now(), changed_at = now() WHERE owner_id = $1 AND name = $2

-- name: resolve_templates
-- The version that each (owner, name, version or null) resolves to, if it exists.
SELECT asked.owner_id, asked.name, asked.version AS asked_version, v.version
FROM unnest($1::text[], $2::text[], $3::int[]) AS asked (owner_id, name, version)
JOIN templates AS t ON t.owner_id = asked.owner_id AND t.name = asked.name AND t.deleted_at IS NULL
JOIN template_versions AS v
    ON v.owner_id = t.owner_id AND v.name = t.name AND v.version = coalesce(asked.version, t.newest)

-- name: read_template_source
SELECT source FROM template_versions WHERE owner_id = $1 AND name = $2 AND version = $3

-- name: keep_rendered
-- Unless the content was removed meanwhile, or another process was first.
UPDATE emails SET subject = $2, text_body = $3, html_body = $4, template_data = NULL
WHERE id = $1 AND template_data IS NOT NULL

-- name: remove_template_versions
-- Of templates that were deleted a day ago, if no mail still needs them. The day is for mails that named one right
-- before its deletion, and are not stored yet.
WITH gone AS (
    SELECT v.owner_id, v.name, v.version
    FROM templates AS t JOIN template_versions AS v USING (owner_id, name)
    WHERE t.deleted_at <= now() - interval '1 day' AND NOT EXISTS (
        SELECT FROM emails
        WHERE emails.owner_id = t.owner_id AND emails.template_name = t.name AND emails.template_data IS NOT NULL
    )
    LIMIT $1
    -- A template that has been stored again meanwhile is skipped.
    FOR UPDATE OF t SKIP LOCKED
)
DELETE FROM template_versions AS v USING gone
WHERE v.owner_id = gone.owner_id AND v.name = gone.name AND v.version = gone.version

-- name: remove_templates
-- Removes templates that have no versions left.
DELETE FROM templates
WHERE (owner_id, name) IN (
    SELECT owner_id, name FROM templates AS t
    WHERE deleted_at <= now() - interval '1 day' AND NOT EXISTS (
        SELECT FROM template_versions AS v WHERE v.owner_id = t.owner_id AND v.name = t.name
    )
    LIMIT $1
    FOR UPDATE SKIP LOCKED
)
