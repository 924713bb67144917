-- name: exchange_tokens
-- For one class and window: add what was spent, take back what is returned, and grant what is needed, as far as it is
-- free; far from the limit, as much as is wished. The first question of a window gets what it needs.
-- Rows are locked in one order, so that gateways never deadlock.
WITH asked AS MATERIALIZED (
    SELECT * FROM unnest($4::bigint[], $5::text[], $6::bigint[], $7::bigint[], $8::bigint[], $9::bigint[])
        AS a (most, who, spent, back, need, wish)
), first AS (
    SELECT most, who, spent, greatest(-back, 0) AS unleased, need FROM asked
)
INSERT INTO rate_windows AS w (who, class, starts_at, ends_at, taken, spent, granted)
SELECT who, $1, $2, $3, unleased + greatest(least(most - unleased, need), 0), spent,
    greatest(least(most - unleased, need), 0)
FROM first
ORDER BY who
ON CONFLICT (who, class, starts_at) DO UPDATE SET (taken, spent, granted) = (
    SELECT w.taken - a.back + g.granted, w.spent + a.spent, g.granted
    FROM asked AS a,
    LATERAL (SELECT a.most - w.taken + a.back AS free) AS f,
    LATERAL (SELECT greatest(least(f.free, greatest(a.need, least(a.wish, f.free / 8))), 0) AS granted) AS g
    WHERE a.who = excluded.who
)
RETURNING who, taken, spent, granted

-- name: remove_old_windows
-- Windows that ended a while ago, because clocks differ.
DELETE FROM rate_windows WHERE (who, class, starts_at) IN (
    SELECT who, class, starts_at FROM rate_windows WHERE ends_at < $1 ORDER BY ends_at LIMIT $2
    FOR UPDATE SKIP LOCKED
)
