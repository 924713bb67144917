-- The open uploads of an owner are counted when it opens another one.
DROP INDEX CONCURRENTLY IF EXISTS open_uploads_owner;
CREATE INDEX CONCURRENTLY open_uploads_owner ON open_uploads (owner_id);
