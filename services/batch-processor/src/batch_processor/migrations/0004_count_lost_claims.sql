-- Claims of the chunk whose worker was not heard of again: a chunk that kills its workers is cut up.
ALTER TABLE chunks ADD COLUMN lost smallint NOT NULL DEFAULT 0;
