-- name: find_examined_batches
-- The $5 newest batches in these statuses before the id $4: how many are in each, and which is the last. A list that is
-- narrowed further examines no others at a time: its filter may match none of very many.
SELECT status, count(*)::int AS most, min(id::text)::uuid AS last
FROM (
    SELECT found.status, found.id
    FROM unnest($3::text[]) AS wanted (wanted_status)
    CROSS JOIN LATERAL (
        SELECT status, id FROM batches
        WHERE owner_id = $1 AND kind = $2 AND status >= wanted_status AND (status, id) < (wanted_status, $4::uuid)
            AND operation IS NOT NULL
        ORDER BY status DESC, id DESC LIMIT $5
    ) AS found
    ORDER BY found.id DESC LIMIT $5
) AS newest
GROUP BY status

-- name: list_batches
-- Of each status $3 up to $10 batches before the id $9 are examined. Each status is read separately, and as a range: only
-- the index of owners and statuses has this order. By another one, what an owner has few of, as batches beside very many
-- tasks, would be looked for in all rows. OFFSET 0 lets the failures of one batch be read at a time.
SELECT
    id, owner_id, kind, operation, status, priority, options, accepted_at, not_before, total, received,
    succeeded, failed, cancelled, skipped, chunk_count, revision, cancel_requested, started_at, finished_at,
    error_code, error_detail, scopes, appended_at, metadata, expires_at, on_finished, retry_codes,
    retry_after, source, source_after, source_revision, validating_since, cancelling_since, scoped_at
FROM unnest($3::text[], $10::int[]) AS part (part_status, most)
CROSS JOIN LATERAL (
    SELECT * FROM (
        SELECT * FROM batches
        WHERE owner_id = $1 AND kind = $2 AND status >= part_status AND (status, id) < (part_status, $9::uuid)
            AND operation IS NOT NULL
        ORDER BY status DESC, id DESC LIMIT part.most
    ) AS examined
    WHERE ($4::text[] IS NULL OR operation = ANY($4))
        AND ($5::timestamptz IS NULL OR accepted_at > $5) AND ($6::timestamptz IS NULL OR accepted_at < $6)
        AND (NOT $7 OR failed > 0) AND ($8::text[] IS NULL OR EXISTS (
            SELECT FROM failures AS f WHERE f.batch_id = examined.id AND f.code = ANY($8) AND f.items > 0 OFFSET 0
        ))
    ORDER BY status DESC, id DESC LIMIT $11
) AS found
ORDER BY id DESC LIMIT $11

-- name: count_batches
-- Among the $11 newest of each status before the id $9, from the id $10 on; is_cut where more may match.
SELECT part_status AS status, found.batches, found.is_cut
FROM unnest($2::text[]) AS part_kind CROSS JOIN unnest($3::text[]) AS part_status
CROSS JOIN LATERAL (
    SELECT count(*) FILTER (
        WHERE ($10::uuid IS NULL OR id >= $10) AND ($4::text[] IS NULL OR operation = ANY($4))
            AND ($5::timestamptz IS NULL OR accepted_at > $5) AND ($6::timestamptz IS NULL OR accepted_at < $6)
            AND (NOT $7 OR failed > 0) AND ($8::text[] IS NULL OR EXISTS (
                SELECT FROM failures AS f WHERE f.batch_id = examined.id AND f.code = ANY($8) AND f.items > 0 OFFSET 0
            ))
    ) AS batches, count(*) = $11 AND ($10::uuid IS NULL OR min(id::text)::uuid > $10) AS is_cut
    FROM (
        SELECT * FROM batches
        WHERE owner_id = $1 AND kind = part_kind AND status >= part_status AND (status, id) < (part_status, $9::uuid)
            AND operation IS NOT NULL
        ORDER BY status DESC, id DESC LIMIT $11
    ) AS examined
) AS found
WHERE found.batches > 0 OR found.is_cut

-- name: task_sizes
-- The bytes of the results of tasks, and of their $2 newest failed attempts.
SELECT
    id AS batch_id,
    coalesce((SELECT octet_length(result) FROM results WHERE batch_id = task.id AND position = 0), 0) + coalesce((
        SELECT sum(100 + octet_length(code) + octet_length(detail)) FROM (
            SELECT code, detail FROM attempts WHERE batch_id = task.id AND position = 0 ORDER BY nth DESC LIMIT $2
        ) AS newest
    ), 0) AS size
FROM unnest($1::uuid[]) AS task (id)

-- name: last_gapless
-- The last position after $2, up to $3, up to which every item has ended.
SELECT coalesce(max(position), $2::int) FROM (
    SELECT position, row_number() OVER (ORDER BY position) AS nth FROM results
    WHERE batch_id = $1 AND position > $2::int AND position <= $3
) AS ended
WHERE position = $2::int + nth

-- name: list_results
-- A page as JSON, made here because that costs least for a million rows. With $7, each row is on its own line, and
-- there are no other line breaks. Results are bounded by position and each item is looked up alone (`OFFSET 0`
-- keeps the planner from joining the tables), so that no statistics, however old, lead to a plan that reads more:
-- with a join of two ranges each result of a new batch was compared with each item. A page ends at its number of rows ($5) or its size in bytes ($6), but never before its
-- first row. The rows reach the aggregate in order, so it sorts nothing.
WITH page AS (
    SELECT
        r.position, i.custom_id, r.status::text AS status, r.result, r.error_code, r.error_detail, r.attempts,
        150 + coalesce(octet_length(r.result), 0) + coalesce(octet_length(r.error_detail), 0)
            + coalesce(octet_length(i.custom_id), 0) AS size
    FROM results AS r CROSS JOIN LATERAL (
        SELECT custom_id FROM items WHERE batch_id = $1 AND position = r.position OFFSET 0
    ) AS i
    WHERE r.batch_id = $1 AND r.position > $2 AND r.position <= $3
        AND ($4::text IS NULL OR r.status = $4::item_status)
    ORDER BY r.position LIMIT $5 + 1
), sized AS (
    SELECT
        *,
        sum(size) OVER (ORDER BY position ROWS UNBOUNDED PRECEDING) - size < $6
            AND row_number() OVER (ORDER BY position ROWS UNBOUNDED PRECEDING) <= $5 AS is_kept
    FROM page ORDER BY position
)
SELECT
    string_agg(
        '{"position":' || position || ',"custom_id":' || coalesce(to_json(custom_id)::text, 'null')
            || ',"status":"' || status
            || '","result":' || coalesce(CASE WHEN $7 THEN translate(result, E'\n\r', '  ') ELSE result END, 'null')
            || ',"error":' || CASE
                WHEN error_code IS NULL THEN 'null'
                ELSE '{"code":' || to_json(error_code) || ',"detail":' || to_json(coalesce(error_detail, '')) || '}'
            END
            || ',"attempts":' || attempts || '}',
        CASE WHEN $7 THEN E',\n' ELSE ',' END
    ) FILTER (WHERE is_kept) AS data,
    max(position) FILTER (WHERE is_kept) AS last_position,
    coalesce(NOT bool_and(is_kept), false) AS is_cut
FROM sized

-- name: list_unfinished
-- The items with the status $7, `pending` or `running`. For pending ones $6 positions are read, from where a chunk
-- remains: items outside of chunks have ended. `more` is the last of these positions if chunks remain behind it. Running
-- ones are found from their chunks, of which there are few. Each result is looked up alone, as in list_results.
WITH span AS (
    SELECT greatest($2::int + 1, min(first_position)) AS first FROM chunks WHERE batch_id = $1 AND last_position > $2
), page AS (
    (
        SELECT i.position, i.custom_id FROM items AS i
        WHERE $7::text = 'pending' AND i.batch_id = $1 AND i.position >= (SELECT first FROM span)
            AND i.position < (SELECT first FROM span) + $6::int
            AND NOT EXISTS (SELECT FROM results AS r WHERE r.batch_id = $1 AND r.position = i.position OFFSET 0)
            AND NOT EXISTS (
                SELECT FROM chunks AS c
                WHERE c.batch_id = $1 AND c.state = 'running'
                    AND i.position BETWEEN c.first_position AND c.last_position
                    AND (c.positions IS NULL OR i.position = ANY(c.positions))
            )
        ORDER BY i.position LIMIT $3 + 1
    )
    UNION ALL
    (
        SELECT i.position, i.custom_id FROM chunks AS c
        CROSS JOIN LATERAL (
            SELECT position, custom_id FROM items
            WHERE batch_id = $1 AND position BETWEEN c.first_position AND c.last_position AND position > $2
                AND (c.positions IS NULL OR position = ANY(c.positions))
            OFFSET 0
        ) AS i
        WHERE $7 = 'running' AND c.batch_id = $1 AND c.state = 'running'
            AND NOT EXISTS (SELECT FROM results AS r WHERE r.batch_id = $1 AND r.position = i.position OFFSET 0)
        ORDER BY i.position LIMIT $3 + 1
    )
), sized AS (
    SELECT
        position, custom_id, sum(size) OVER (ORDER BY position) - size AS before, count(*) OVER () AS found,
        row_number() OVER (ORDER BY position) AS nth
    FROM (SELECT *, 200 + coalesce(octet_length(custom_id), 0) AS size FROM page) AS measured
)
SELECT
    string_agg(
        '{"position":' || position || ',"custom_id":' || coalesce(to_json(custom_id)::text, 'null')
            || ',"status":"' || $7 || '","result":null,"error":null,"attempts":0}',
        CASE WHEN $5 THEN E',\n' ELSE ',' END ORDER BY position
    ) AS data,
    max(position) AS last_position,
    count(*) < max(found) AS is_cut,
    (
        SELECT first + $6 - 1 FROM span
        WHERE $7 = 'pending' AND EXISTS (SELECT FROM chunks WHERE batch_id = $1 AND last_position >= first + $6)
    ) AS more
FROM sized WHERE before < $4 AND nth <= $3

-- name: list_items
-- A page ends at its size in bytes ($4), but not before its first row; the errors of attempts may be larger than the
-- payloads. Of each item there are the $5 newest. The result of each of its items is looked up alone, as in list_results.
SELECT
    i.position, i.custom_id, i.payload, r.status::text AS status, r.error_code, r.error_detail,
    r.position IS NULL AND EXISTS (
        SELECT FROM chunks AS c
        WHERE c.batch_id = $1 AND c.state = 'running'
            AND i.position BETWEEN c.first_position AND c.last_position
            AND (c.positions IS NULL OR i.position = ANY(c.positions))
    ) AS is_running,
    i.failed_attempts
FROM (
    SELECT
        position, custom_id, payload, failed_attempts,
        sum(octet_length(payload) + octet_length(failed_attempts)) OVER (ORDER BY position)
        - octet_length(payload) - octet_length(failed_attempts) AS before
    FROM (
        SELECT
            position, custom_id, payload,
            coalesce((
                SELECT json_agg(
                    json_build_object('code', a.code, 'detail', a.detail, 'failed_at', a.failed_at) ORDER BY a.nth
                )::text
                FROM (
                    SELECT nth, code, detail, failed_at FROM attempts
                    WHERE batch_id = $1 AND position = items.position ORDER BY nth DESC LIMIT $5
                ) AS a
            ), '[]') AS failed_attempts
        FROM items WHERE batch_id = $1 AND position > $2 AND position <= $3
        -- Otherwise the attempts would be read at each place where they are named.
        OFFSET 0
    ) AS tried
) AS i
LEFT JOIN LATERAL (
    SELECT position, status, error_code, error_detail FROM results
    WHERE batch_id = $1 AND position = i.position OFFSET 0
) AS r ON true
WHERE i.before < $4
ORDER BY i.position

-- name: sum_up_errors
-- The $2 most frequent codes, of those in $3 if there are any, each with its first $4 items.
SELECT f.code, f.items, s.position, i.custom_id, s.error_detail
FROM (
    SELECT code, items FROM failures
    WHERE batch_id = $1 AND items > 0 AND (cardinality($3::text[]) = 0 OR code = ANY($3))
    ORDER BY items DESC, code LIMIT $2
) AS f
LEFT JOIN LATERAL (
    SELECT position, error_detail FROM results
    WHERE batch_id = $1 AND status = 'failed' AND error_code = f.code ORDER BY position LIMIT $4
) AS s ON true
LEFT JOIN items AS i ON i.batch_id = $1 AND i.position = s.position
ORDER BY f.items DESC, f.code, s.position
