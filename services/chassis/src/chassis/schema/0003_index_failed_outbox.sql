-- What has failed is published apart from the rest, and looked for twice a second.
CREATE INDEX outbox_failed ON outbox (due_at, id) WHERE attempts > 0;
