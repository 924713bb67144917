-- Keys that ended long ago are found by the time of their end, whichever of the two is first.
DROP INDEX CONCURRENTLY IF EXISTS api_keys_ended;
CREATE INDEX CONCURRENTLY api_keys_ended ON api_keys ((least(revoked_at, expires_at)))
    WHERE least(revoked_at, expires_at) IS NOT NULL;
