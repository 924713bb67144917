-- name: make_ready
-- Marks recipients as ready that have become due, or whose lease has run out.
WITH due AS (
    SELECT email_id, position
    FROM recipients
    WHERE due_at BETWEEN $2 AND now() AND due_at IS NOT NULL AND NOT ready
    ORDER BY due_at
    LIMIT $1
    FOR UPDATE SKIP LOCKED
)
UPDATE recipients
SET ready = true,
    owner_id = CASE recipients.owner_id
        WHEN '' THEN (SELECT emails.owner_id FROM emails WHERE emails.id = recipients.email_id)
        ELSE recipients.owner_id
    END,
    domain = CASE recipients.domain
        WHEN '' THEN coalesce(nullif(substring(address FROM '@([^@]*)$'), ''), '?')
        ELSE recipients.domain
    END
FROM due
WHERE recipients.email_id = due.email_id AND recipients.position = due.position

-- name: look_for_recipients
-- The seconds until the first recipient that is in no lane yet is due, from $1 on, and until the first waiting one
-- expires, each NULL if it is more than a few: while an old snapshot is held, the dead rows of everything delivered
-- stay in front of the later ones. Whether a lane got recipients since a snapshot that ended at $2 while $3 ran.
SELECT
    now() AS at,
    (
        SELECT extract(epoch FROM min(due_at) - now())::float8 FROM recipients
        WHERE due_at IS NOT NULL AND NOT ready AND due_at >= $1 AND due_at < now() + interval '5 seconds'
    ) AS due_in_s,
    (
        SELECT extract(epoch FROM min(expires_at) - now())::float8 FROM recipients
        WHERE due_at IS NOT NULL AND status <> 'sending' AND expires_at < now() + interval '5 seconds'
    ) AS expires_in_s,
    EXISTS (SELECT FROM recipients WHERE ready AND stamp >= $2 ORDER BY stamp LIMIT 1)
    OR EXISTS (SELECT FROM recipients WHERE ready AND stamp = ANY($3::bigint[])) AS has_arrivals

-- name: find_arrivals
-- The recipients that became ready since a snapshot with xmax $1 and running transactions $2, by lane, at most $3
-- of each; and the snapshot of this statement.
SELECT
    pg_snapshot_xmax(seen)::text::bigint AS ends_at, ARRAY(SELECT pg_snapshot_xip(seen)::text::bigint) AS at_work,
    found.*
FROM (SELECT pg_current_snapshot() AS seen) AS snapshot
LEFT JOIN LATERAL (
    SELECT stream, owner_id, domain, min(due_at) AS due_from, count(*) AS count
    FROM (
        (
            SELECT stream, owner_id, domain, due_at FROM recipients
            WHERE ready AND stamp >= $1 ORDER BY stamp LIMIT $3
        )
        UNION ALL
        SELECT late.* FROM unnest($2::bigint[]) AS at_work (stamp)
        CROSS JOIN LATERAL (
            SELECT stream, owner_id, domain, due_at FROM recipients
            WHERE ready AND recipients.stamp = at_work.stamp ORDER BY recipients.stamp LIMIT $3
        ) AS late
    ) AS arrived
    GROUP BY stream, owner_id, domain
) AS found ON true

-- name: find_owners
-- The next owners in the round that have ready recipients: one index probe each, however many they are.
WITH RECURSIVE owners AS (
    (
        SELECT owner_id, 1 AS number FROM recipients
        WHERE ready AND stream = $1 AND owner_id > $2
        ORDER BY owner_id LIMIT 1
    )
    UNION ALL
    SELECT following.owner_id, owners.number + 1
    FROM owners
    CROSS JOIN LATERAL (
        SELECT owner_id FROM recipients
        WHERE ready AND stream = $1 AND recipients.owner_id > owners.owner_id
        ORDER BY owner_id LIMIT 1
    ) AS following
    WHERE owners.number < $3
)
SELECT owner_id FROM owners

-- name: find_lanes
-- The next domains in the rounds of these owners, with one index probe each.
SELECT owners.owner_id, domains.domain
FROM unnest($2::text[], $3::text[]) AS owners (owner_id, after)
CROSS JOIN LATERAL (
    WITH RECURSIVE found AS (
        (
            SELECT domain, 1 AS number FROM recipients
            WHERE ready AND stream = $1 AND recipients.owner_id = owners.owner_id AND domain > owners.after
            ORDER BY domain LIMIT 1
        )
        UNION ALL
        SELECT following.domain, found.number + 1
        FROM found
        CROSS JOIN LATERAL (
            SELECT domain FROM recipients
            WHERE ready AND stream = $1 AND recipients.owner_id = owners.owner_id
                AND recipients.domain > found.domain
            ORDER BY domain LIMIT 1
        ) AS following
        WHERE found.number < $4
    )
    SELECT domain FROM found
) AS domains

-- name: claim_lanes
-- Takes from each lane the recipients that have been ready longest, up to `$8` bytes of mails in all and the bytes in
-- `$10` for each owner, but at least one recipient. The recipients of a mail share its bytes, and a recipient that does
-- not fit its owner's bytes takes none from other owners. Nothing in a lane is due before its time in `$9`; everything
-- in it is due, including recipients that became ready after this transaction began, which `now()` would exclude.
WITH due AS (
    SELECT taken.*
    FROM unnest($1::text[], $2::text[], $3::text[], $4::int[], $9::timestamptz[], $10::bigint[])
        AS lane (stream, owner_id, domain, most, due_from, own_bytes)
    CROSS JOIN LATERAL (
        SELECT email_id, position, status, due_at, size_bytes, owner_id, lane.own_bytes
        FROM recipients
        WHERE ready AND recipients.stream = lane.stream AND recipients.owner_id = lane.owner_id
            AND recipients.domain = lane.domain AND due_at >= lane.due_from
        ORDER BY due_at
        LIMIT lane.most
        FOR UPDATE SKIP LOCKED
    ) AS taken
    LIMIT $5
), sized AS (
    SELECT
        email_id,
        position,
        status,
        due_at,
        owner_id,
        own_bytes,
        CASE row_number() OVER (PARTITION BY email_id ORDER BY due_at, position)
            WHEN 1 THEN size_bytes ELSE 0
        END AS new_bytes
    FROM due
), shared AS (
    SELECT
        *,
        sum(new_bytes) OVER (PARTITION BY owner_id ORDER BY due_at, email_id, position) - new_bytes AS own_before
    FROM sized
), fit AS (
    SELECT
        email_id,
        position,
        status AS was,
        due_at AS was_due_at,
        sum(new_bytes) OVER (ORDER BY due_at, email_id, position) - new_bytes AS bytes_before
    FROM shared
    WHERE own_before < own_bytes
)
UPDATE recipients
SET status = 'sending', ready = false, holder = $6, due_at = now() + $7 * interval '1 second'
FROM fit
WHERE recipients.email_id = fit.email_id AND recipients.position = fit.position AND fit.bytes_before < $8
RETURNING
    recipients.email_id, recipients.position, recipients.address, recipients.tries, recipients.doubts,
    recipients.stream, recipients.owner_id, recipients.domain, recipients.size_bytes, fit.was, fit.was_due_at

-- name: measure_ready
-- Counts the recipients in these lanes, up to `$5`. Nothing in a lane is due before its time in `$4`.
SELECT count(*)
FROM (
    SELECT
    FROM unnest($1::text[], $2::text[], $3::text[], $4::timestamptz[]) AS lane (stream, owner_id, domain, due_from)
    CROSS JOIN LATERAL (
        SELECT FROM recipients
        WHERE ready AND recipients.stream = lane.stream AND recipients.owner_id = lane.owner_id
            AND recipients.domain = lane.domain AND due_at >= lane.due_from
        LIMIT $5
    ) AS standing
    LIMIT $5
) AS counted

-- name: oldest_of_lanes
SELECT coalesce(extract(epoch FROM now() - min(first.due_at)), 0)::float8
FROM unnest($1::text[], $2::text[], $3::text[], $4::timestamptz[]) AS lane (stream, owner_id, domain, due_from)
CROSS JOIN LATERAL (
    SELECT due_at FROM recipients
    WHERE ready AND recipients.stream = lane.stream AND recipients.owner_id = lane.owner_id
        AND recipients.domain = lane.domain AND due_at >= lane.due_from
    ORDER BY due_at LIMIT 1
) AS first

-- name: measure_domains
-- The attempts charged to each domain within its last $2 seconds, and the seconds until the first of them no longer
-- counts.
SELECT
    wanted.domain,
    coalesce(sum(domain_charges.attempts), 0)::int AS charged,
    coalesce(extract(epoch FROM min(domain_charges.at) - clock_timestamp()) + wanted.window_s, 0)::float8 AS opens_in_s
FROM unnest($1::text[], $2::float8[]) AS wanted (domain, window_s)
LEFT JOIN domain_charges ON domain_charges.domain = wanted.domain
    AND domain_charges.at > clock_timestamp() - make_interval(secs => wanted.window_s)
GROUP BY wanted.domain, wanted.window_s

-- name: lock_domain_rate
SELECT pg_advisory_xact_lock(hashtextextended('emailer.domain ' || $1, 0))

-- name: charge_domain
-- Charges an attempt to the domain $1, unless it has $2 within $3 seconds, in a slot of $4 seconds.
INSERT INTO domain_charges (domain, at, attempts)
SELECT $1, to_timestamp(floor(extract(epoch FROM clock_timestamp()) / $4::float8) * $4::float8), 1
WHERE $2::int > (
    SELECT coalesce(sum(attempts), 0) FROM domain_charges
    WHERE domain = $1 AND at > clock_timestamp() - make_interval(secs => $3::float8)
)
ON CONFLICT (domain, at) DO UPDATE SET attempts = domain_charges.attempts + 1
RETURNING attempts

-- name: remove_domain_charges
DELETE FROM domain_charges WHERE at < now() - interval '2 days'
