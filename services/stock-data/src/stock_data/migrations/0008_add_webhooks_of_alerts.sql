-- One element for each target of an alert, in the order of the request: the id of a webhook, or NULL in the place of an
-- e-mail, whose address is in `emails`. Empty without webhooks.
ALTER TABLE alerts ADD COLUMN webhooks uuid[] NOT NULL DEFAULT '{}';
