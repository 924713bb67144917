-- The rights of the owner when the batch was accepted; NULL when the sender did not tell them.
ALTER TABLE batches ADD COLUMN scopes text[];
