-- name: select_bars
-- One symbol's bars of a range of days, oldest first, each with whether its prices repeat those of the bar before.
SELECT * FROM (
    SELECT day, open, high, low, close, volume + volume_fraction AS volume, adjusted_close,
        (open, high, low, close) IS NOT DISTINCT FROM (
            lag(open) OVER before, lag(high) OVER before, lag(low) OVER before, lag(close) OVER before
        ) AS is_repeated
    FROM bars
    WHERE symbol = $1 AND day <= $3
        AND day >= coalesce((SELECT max(day) FROM bars WHERE symbol = $1 AND day < $2), $2)
    WINDOW before AS (ORDER BY day)
) found
WHERE day >= $2
ORDER BY day
LIMIT $4;

-- name: select_days
-- All bars of the first trading days from a day on, each with the bar before it.
SELECT b.symbol, i.currency, b.day, b.open, b.high, b.low, b.close, b.volume + b.volume_fraction AS volume,
    b.adjusted_close, false AS is_repeated, p.day AS previous_day, p.close AS previous_close
FROM bars b
JOIN instruments i USING (symbol)
LEFT JOIN LATERAL (
    SELECT day, close FROM bars WHERE symbol = b.symbol AND day < b.day ORDER BY day DESC LIMIT 1
) p ON true
WHERE b.day IN (SELECT DISTINCT day FROM bars WHERE day >= $1 ORDER BY day LIMIT $2)
ORDER BY b.day, b.symbol;

-- name: select_listings
-- Every instrument with its first day and its two newest bars, the newest first.
SELECT i.symbol, i.name, i.exchange, i.currency, i.source, f.first_day,
    b.day, b.open, b.high, b.low, b.close, b.volume + b.volume_fraction AS volume, b.adjusted_close,
    false AS is_repeated
FROM instruments i
JOIN LATERAL (SELECT min(day) AS first_day FROM bars WHERE symbol = i.symbol) f ON true
JOIN LATERAL (SELECT * FROM bars WHERE symbol = i.symbol ORDER BY day DESC LIMIT 2) b ON true
ORDER BY i.symbol, b.day DESC;

-- name: select_splits
SELECT symbol, day, ratio FROM corporate_actions WHERE kind = 'split' ORDER BY symbol, day;
