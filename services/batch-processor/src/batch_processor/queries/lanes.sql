-- name: find_lanes
-- The lanes with a ready chunk, the first chunk of each, and the snapshot of this statement; one index probe for
-- each lane.
WITH RECURSIVE found (owner_id, lane, stamp, batch_id, number) AS (
    (
        SELECT owner_id, lane_of(priority, run), stamp, batch_id, number FROM chunks
        WHERE state = 'ready' AND owner_id IS NOT NULL
        ORDER BY owner_id, lane_of(priority, run), stamp, batch_id, number LIMIT 1
    )
    UNION ALL
    SELECT following.* FROM found CROSS JOIN LATERAL (
        SELECT owner_id, lane_of(priority, run), stamp, batch_id, number FROM chunks
        WHERE state = 'ready' AND (owner_id, lane_of(priority, run)) > (found.owner_id, found.lane)
        ORDER BY owner_id, lane_of(priority, run), stamp, batch_id, number LIMIT 1
    ) AS following
)
SELECT
    found.*, pg_snapshot_xmax(seen)::text::bigint AS ends_at,
    ARRAY(SELECT pg_snapshot_xip(seen)::text::bigint) AS at_work
FROM (SELECT pg_current_snapshot() AS seen) AS snapshot LEFT JOIN found ON true

-- name: follow_lanes
-- The first chunk of each lane of $1 and $2, from the stamps $3 and the chunks $4 and $5 on; the lanes in which
-- chunks became ready since the previous snapshot, which ended at $6, with a place that is not after their first
-- chunk; and the snapshot of this statement.
WITH RECURSIVE later (stamp, owner_id, lane) AS (
    (
        SELECT stamp, owner_id, lane_of(priority, run) FROM chunks
        WHERE state = 'ready' AND stamp >= $6 AND owner_id IS NOT NULL
        ORDER BY stamp, owner_id, lane_of(priority, run) LIMIT 1
    )
    UNION ALL
    SELECT following.* FROM later CROSS JOIN LATERAL (
        SELECT stamp, owner_id, lane_of(priority, run) FROM chunks
        WHERE state = 'ready' AND (stamp, owner_id, lane_of(priority, run)) > (later.stamp, later.owner_id, later.lane)
            AND owner_id IS NOT NULL
        ORDER BY stamp, owner_id, lane_of(priority, run) LIMIT 1
    ) AS following
), found (owner_id, lane, stamp, batch_id, number) AS (
    SELECT owner_id, lane, stamp, '00000000-0000-0000-0000-000000000000'::uuid, 0 FROM later
    UNION ALL
    SELECT known.owner_id, known.lane, first.stamp, first.batch_id, first.number
    FROM unnest($1::text[], $2::smallint[], $3::bigint[], $4::uuid[], $5::int[])
        AS known (owner_id, lane, stamp, batch_id, number)
    CROSS JOIN LATERAL (
        SELECT c.stamp, c.batch_id, c.number FROM chunks AS c
        WHERE c.state = 'ready' AND c.owner_id = known.owner_id AND lane_of(c.priority, c.run) = known.lane
            AND (c.stamp, c.batch_id, c.number) >= (known.stamp, known.batch_id, known.number)
        ORDER BY c.stamp, c.batch_id, c.number LIMIT 1
    ) AS first
)
SELECT
    found.*, pg_snapshot_xmax(seen)::text::bigint AS ends_at,
    ARRAY(SELECT pg_snapshot_xip(seen)::text::bigint) AS at_work
FROM (SELECT pg_current_snapshot() AS seen) AS snapshot LEFT JOIN found ON true

-- name: lanes_of_stamps
-- The lanes in which the transactions $1 have made chunks ready, with a place that is not after the first of them.
-- Apart from `follow_lanes`, which would be planned for each look: very many chunks may have one of several stamps.
WITH RECURSIVE found (stamp, owner_id, lane) AS (
    SELECT first.* FROM unnest($1::bigint[]) AS wanted (stamp) CROSS JOIN LATERAL (
        SELECT stamp, owner_id, lane_of(priority, run) FROM chunks
        WHERE state = 'ready' AND stamp = wanted.stamp AND owner_id IS NOT NULL
        ORDER BY owner_id, lane_of(priority, run) LIMIT 1
    ) AS first
    UNION ALL
    SELECT following.* FROM found CROSS JOIN LATERAL (
        SELECT stamp, owner_id, lane_of(priority, run) FROM chunks
        WHERE state = 'ready' AND stamp = found.stamp AND (owner_id, lane_of(priority, run)) > (found.owner_id, found.lane)
            AND owner_id IS NOT NULL
        ORDER BY owner_id, lane_of(priority, run) LIMIT 1
    ) AS following
)
SELECT owner_id, lane, stamp, '00000000-0000-0000-0000-000000000000'::uuid AS batch_id, 0 AS number FROM found

-- name: first_in_flight
-- The stamp, from $1 on, before which no chunk is running, now or later.
SELECT least(
    (SELECT min(stamp) FROM chunks WHERE state IN ('dispatched', 'running') AND stamp >= $1),
    pg_snapshot_xmin(pg_current_snapshot())::text::bigint
)
