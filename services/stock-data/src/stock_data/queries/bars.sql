-- name: select_bars
-- A page of one symbol's bars after a day, oldest first.
SELECT day, open, high, low, close, volume, adjusted_close
FROM bars
WHERE symbol = $1 AND day >= $2 AND day <= $3
ORDER BY day
LIMIT $4;

-- name: select_next_day
-- All bars of the first trading day from a day on, each with the bar before it.
SELECT b.symbol, i.currency, b.day, b.open, b.high, b.low, b.close, b.volume, b.adjusted_close,
    p.day AS previous_day, p.close AS previous_close
FROM bars b
JOIN instruments i USING (symbol)
LEFT JOIN LATERAL (
    SELECT day, close FROM bars WHERE symbol = b.symbol AND day < b.day ORDER BY day DESC LIMIT 1
) p ON true
WHERE b.day = (SELECT min(day) FROM bars WHERE day >= $1)
ORDER BY b.symbol;

-- name: select_listings
-- Every instrument with its first day and its two newest bars, the newest first.
SELECT i.symbol, i.name, i.exchange, i.currency, i.source, f.first_day,
    b.day, b.open, b.high, b.low, b.close, b.volume, b.adjusted_close
FROM instruments i
JOIN LATERAL (SELECT min(day) AS first_day FROM bars WHERE symbol = i.symbol) f ON true
JOIN LATERAL (SELECT * FROM bars WHERE symbol = i.symbol ORDER BY day DESC LIMIT 2) b ON true
ORDER BY i.symbol, b.day DESC;

-- name: select_splits
SELECT symbol, day, ratio FROM corporate_actions WHERE kind = 'split' ORDER BY symbol, day;
