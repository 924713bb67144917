-- name: try_lock_feed
SELECT pg_try_advisory_lock($1);

-- name: claim_term
-- Begin the next term: later than all stored ones, than the one seen in ticks and, after a restore, than lost ones.
INSERT INTO replay AS r (term, start_day)
VALUES (greatest($1::bigint + 1, (extract(epoch FROM clock_timestamp()) * 1000)::bigint), $2::date)
ON CONFLICT (is_only) DO UPDATE SET
    term = greatest(r.term + 1, excluded.term),
    start_day = excluded.start_day,
    is_same_replay = r.start_day = excluded.start_day,
    replayed = CASE WHEN r.start_day = excluded.start_day THEN r.replayed END,
    shown_at = CASE WHEN r.start_day = excluded.start_day THEN r.shown_at END
RETURNING term, replayed, shown_at, is_same_replay;

-- name: save_position
-- Save the position of the leader of a term; no row when a later term has begun.
UPDATE replay SET replayed = coalesce($2, replayed), shown_at = coalesce($3, shown_at) WHERE term = $1
RETURNING true;

-- name: select_replay
SELECT term, replayed, shown_at FROM replay WHERE start_day = $1 AND replayed IS NOT NULL;
