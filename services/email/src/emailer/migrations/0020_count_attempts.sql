-- How many attempts of a recipient were recorded, so that the oldest are removed from time to time.
ALTER TABLE recipients ADD COLUMN attempts int NOT NULL DEFAULT 0;
