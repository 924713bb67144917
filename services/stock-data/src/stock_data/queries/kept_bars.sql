-- name: find_kept_range
-- The range with the day of its newest bar; no row for a range without bars, in which no day is final.
SELECT r.currency, r.first_day, r.last_day, r.bars, newest.day AS newest
FROM kept_ranges AS r CROSS JOIN LATERAL (
    SELECT day FROM kept_bars WHERE source = r.source AND symbol = r.symbol ORDER BY day DESC LIMIT 1
) AS newest
WHERE r.source = $1 AND r.symbol = $2

-- name: select_kept_bars
SELECT day, open, high, low, close, volume, is_repeated FROM kept_bars
WHERE source = $1 AND symbol = $2 AND day BETWEEN $3 AND $4
ORDER BY day LIMIT $5

-- name: count_kept_bars
SELECT count(*) FROM kept_bars WHERE source = $1 AND symbol = $2 AND day BETWEEN $3 AND $4

-- name: sum_kept_bars
SELECT coalesce(sum(bars), 0) FROM kept_ranges

-- name: count_bars_of_owner
SELECT bars FROM kept_owners WHERE owner_id = $1

-- name: count_bars_for_owner
INSERT INTO kept_owners AS o (owner_id, bars) VALUES ($1, $2)
ON CONFLICT (owner_id) DO UPDATE SET bars = o.bars + excluded.bars

-- name: lock_kept_symbol
-- Writers of the same symbol take turns.
SELECT pg_advisory_xact_lock(hashtextextended($1 || ' ' || $2, 0))

-- name: lock_sum_of_bars
-- Until the end of the transaction, so that what one writer counts is what all have stored before it.
SELECT pg_advisory_xact_lock(hashtextextended('sum of kept bars', 0))

-- name: drop_kept_days
-- Bars of these days that another writer has stored meanwhile, or that do not adjoin the range.
DELETE FROM kept_bars WHERE source = $1 AND symbol = $2 AND day BETWEEN $3 AND $4

-- name: extend_kept_range
-- No row when the days do not adjoin the stored range, which must have no gap.
INSERT INTO kept_ranges AS r (source, symbol, currency, first_day, last_day, bars)
VALUES ($1, $2, $3, $4, $5, $6)
ON CONFLICT (source, symbol) DO UPDATE SET
    first_day = least(r.first_day, excluded.first_day), last_day = greatest(r.last_day, excluded.last_day),
    bars = (SELECT count(*) FROM kept_bars AS b WHERE b.source = r.source AND b.symbol = r.symbol),
    kept_at = now()
WHERE r.first_day <= excluded.last_day + 1 AND r.last_day >= excluded.first_day - 1
RETURNING true
