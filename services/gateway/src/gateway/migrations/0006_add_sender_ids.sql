-- The sender's own id of a message makes sending it again harmless.
ALTER TABLE chat_messages ADD COLUMN sender_id text;
CREATE UNIQUE INDEX chat_messages_sender_id ON chat_messages (room, user_id, sender_id)
WHERE sender_id IS NOT NULL;
