-- What happened to a mail beside attempts: somebody's decisions, and the end of its time.
CREATE TABLE email_events (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    email_id uuid NOT NULL REFERENCES emails ON DELETE CASCADE,
    at timestamptz NOT NULL DEFAULT now(),
    kind text NOT NULL,
    -- Null: the mail as a whole.
    position smallint
);
CREATE INDEX email_events_of_email ON email_events (email_id);
