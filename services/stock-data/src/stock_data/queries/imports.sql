-- name: lock_imports
-- One replica imports; the others wait and then find the import done.
SELECT pg_advisory_xact_lock(7214803553);

-- name: is_imported
SELECT EXISTS (SELECT FROM imports WHERE name = $1);

-- name: insert_instruments
INSERT INTO instruments (symbol, name, exchange, source)
SELECT symbol, name, exchange, $4 FROM unnest($1::text[], $2::text[], $3::text[]) AS t (symbol, name, exchange)
ON CONFLICT DO NOTHING;

-- name: insert_splits
INSERT INTO corporate_actions (symbol, day, kind, ratio)
SELECT symbol, day, 'split', ratio
FROM unnest($1::text[], $2::date[], $3::numeric[]) AS t (symbol, day, ratio)
ON CONFLICT DO NOTHING;

-- name: insert_import
INSERT INTO imports (name, sha256, bars) VALUES ($1, $2, $3);
