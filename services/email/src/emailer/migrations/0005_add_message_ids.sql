-- Told when a mail is accepted, or chosen by its sender. Rows of the release before have none: there it is made of
-- the mail's id and the sender's domain.
ALTER TABLE emails ADD COLUMN message_id text;
