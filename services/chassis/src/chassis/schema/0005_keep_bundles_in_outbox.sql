-- A row may hold several messages to one destination, as a bundle: how many.
ALTER TABLE outbox ADD COLUMN messages int NOT NULL DEFAULT 1;
