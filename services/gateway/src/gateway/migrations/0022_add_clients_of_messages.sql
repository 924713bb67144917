-- The connection that has published a message, as publications name it; none for messages over HTTP.
ALTER TABLE chat_messages ADD COLUMN client text;
