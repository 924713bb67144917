-- name: lock_batches
SELECT
    id, owner_id, kind, operation, status, priority, options, accepted_at, not_before, total, received,
    succeeded, failed, cancelled, skipped, chunk_count, revision, cancel_requested, started_at, finished_at,
    error_code, error_detail, scopes, appended_at, metadata, expires_at, on_finished, retry_codes,
    retry_after, source, source_after, source_revision, validating_since, cancelling_since, scoped_at
FROM batches WHERE id = ANY($1::uuid[]) ORDER BY id FOR UPDATE

-- name: save_batches
UPDATE batches AS batch SET
    kind = new.kind,
    operation = new.operation,
    status = new.status,
    priority = new.priority,
    options = new.options::jsonb,
    accepted_at = new.accepted_at,
    not_before = new.not_before,
    total = new.total,
    received = new.received,
    succeeded = new.succeeded,
    failed = new.failed,
    cancelled = new.cancelled,
    skipped = new.skipped,
    chunk_count = new.chunk_count,
    revision = new.revision,
    cancel_requested = new.cancel_requested,
    started_at = new.started_at,
    finished_at = new.finished_at,
    error_code = new.error_code,
    error_detail = new.error_detail,
    scopes = new.scopes,
    appended_at = new.appended_at,
    metadata = new.metadata,
    expires_at = new.expires_at,
    on_finished = new.on_finished,
    retry_codes = new.retry_codes,
    retry_after = new.retry_after,
    source = new.source,
    source_after = new.source_after,
    source_revision = new.source_revision,
    validating_since = new.validating_since,
    cancelling_since = new.cancelling_since,
    scoped_at = new.scoped_at
FROM jsonb_to_recordset($1::jsonb) AS new (
    id uuid, kind text, operation text, status text, priority smallint, options text,
    accepted_at timestamptz, not_before timestamptz, total int, received int, succeeded int, failed int,
    cancelled int, skipped int, chunk_count int, revision int, cancel_requested boolean,
    started_at timestamptz, finished_at timestamptz, error_code text, error_detail text, scopes text[], appended_at timestamptz,
    metadata text, expires_at timestamptz, on_finished text, retry_codes text[], retry_after int,
    source text, source_after int, source_revision int, validating_since timestamptz, cancelling_since timestamptz,
    scoped_at timestamptz
)
WHERE batch.id = new.id

-- name: save_progress
UPDATE batches AS batch SET
    status = new.status, succeeded = new.succeeded, failed = new.failed, cancelled = new.cancelled,
    chunk_count = new.chunk_count, revision = new.revision, started_at = new.started_at,
    finished_at = new.finished_at, error_code = new.error_code, error_detail = new.error_detail,
    cancelling_since = new.cancelling_since
FROM unnest(
    $1::uuid[], $2::text[], $3::int[], $4::int[], $5::int[], $6::int[], $7::int[], $8::timestamptz[],
    $9::timestamptz[], $10::text[], $11::text[], $12::timestamptz[]
) AS new (
    id, status, succeeded, failed, cancelled, chunk_count, revision, started_at, finished_at, error_code,
    error_detail, cancelling_since
)
WHERE batch.id = new.id

-- name: get_batch
SELECT
    id, owner_id, kind, operation, status, priority, options, accepted_at, not_before, total, received,
    succeeded, failed, cancelled, skipped, chunk_count, revision, cancel_requested, started_at, finished_at,
    error_code, error_detail, scopes, appended_at, metadata, expires_at, on_finished, retry_codes,
    retry_after, source, source_after, source_revision, validating_since, cancelling_since, scoped_at
FROM batches WHERE id = $1

-- name: work_of
-- The running items of each batch, whether others wait for its limits while none is about to begin, and the kind of
-- pause by an administrator that stops it; and for a task the attempt that is due next, after one that failed.
SELECT
    b.id AS batch_id,
    coalesce((SELECT sum(remaining) FROM chunks WHERE batch_id = b.id AND state = 'running'), 0)::int AS running,
    EXISTS (SELECT FROM chunks WHERE batch_id = b.id AND state = 'waiting')
        AND NOT EXISTS (SELECT FROM chunks WHERE batch_id = b.id AND state = 'ready') AS is_limited,
    (
        SELECT kind FROM pauses AS p
        WHERE (p.kind = 'owner' AND p.name = b.owner_id) OR (p.kind = 'operation' AND p.name = b.operation)
        ORDER BY kind LIMIT 1
    ) AS paused, again.attempt, again.due_at
FROM batches AS b
LEFT JOIN LATERAL (
    SELECT attempt, due_at FROM chunks
    WHERE b.kind = 'task' AND batch_id = b.id AND attempt > 1 AND state <> 'running' LIMIT 1
) AS again ON true
WHERE b.id = ANY($1::uuid[])

-- name: failures_of
-- The $2 most frequent codes of each batch: an operation may have a code for each item.
SELECT failed.* FROM unnest($1::uuid[]) AS wanted (id) CROSS JOIN LATERAL (
    SELECT batch_id, code, items FROM failures WHERE batch_id = wanted.id AND items > 0
    ORDER BY items DESC, code LIMIT $2
) AS failed
ORDER BY items DESC, code

-- name: only_results
SELECT batch_id, result, error_code, error_detail FROM results
WHERE batch_id = ANY($1::uuid[]) AND position = 0

-- name: attempts_of
-- The $2 newest of each task: its owner may retry it as often as it likes.
SELECT newest.* FROM unnest($1::uuid[]) AS task (id) CROSS JOIN LATERAL (
    SELECT batch_id, nth, code, detail, failed_at FROM attempts WHERE batch_id = task.id AND position = 0
    ORDER BY nth DESC LIMIT $2
) AS newest
ORDER BY nth

-- name: traces_of
SELECT id, traceparent, request_id FROM batches WHERE id = ANY($1)
