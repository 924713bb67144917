-- name: read_version
SHOW server_version

-- name: size_tables
SELECT relname AS name, n_live_tup AS rows, n_dead_tup AS dead, pg_total_relation_size(relid) AS bytes
FROM pg_stat_user_tables ORDER BY pg_total_relation_size(relid) DESC

-- name: count_all_parked
SELECT count(*) FROM parked WHERE state = 'parked'
