-- What a sender wrote keeps its order of names, which jsonb does not. The release before reads and writes
-- `data` alone, so both are filled until it is gone.
ALTER TABLE chat_messages ADD COLUMN written json;
