-- Of the answer that a repeated request gets again.
ALTER TABLE idempotency ADD COLUMN etag text;
