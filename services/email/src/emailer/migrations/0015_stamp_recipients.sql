-- The transaction by which the recipient got into its lane. What is committed later than a snapshot has a stamp that
-- was not yet given, or was at work, when the snapshot was taken: who remembers a snapshot learns of all that got
-- into line since, and need not pass the rows of what has left the lanes. Rows of before have none, and are found by
-- the look at everything.
ALTER TABLE recipients ADD COLUMN stamp bigint;
ALTER TABLE recipients ALTER COLUMN stamp SET DEFAULT (pg_current_xact_id()::text::bigint);

CREATE FUNCTION stamp_recipient() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.stamp := pg_current_xact_id()::text::bigint;
    RETURN NEW;
END
$$;
-- Also of what the release before writes.
CREATE TRIGGER stamp_recipients BEFORE UPDATE ON recipients FOR EACH ROW
WHEN (NEW.ready AND (NOT OLD.ready OR NEW.due_at < OLD.due_at)) EXECUTE FUNCTION stamp_recipient();

CREATE INDEX recipients_ready_by_stamp ON recipients (stamp) WHERE ready;
