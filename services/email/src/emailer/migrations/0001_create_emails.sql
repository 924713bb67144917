-- A mail as it was accepted. `letter` holds what the headers are made of; bodies stand beside it.
CREATE TABLE emails (
    id uuid PRIMARY KEY,
    owner_id text NOT NULL,
    -- The sum of the recipients as of the last recorded outcome; "sending" is never stored.
    status text NOT NULL,
    sender text NOT NULL,
    subject text NOT NULL,
    letter json NOT NULL,
    text_body text,
    html_body text,
    attachment_count int NOT NULL,
    recipient_count int NOT NULL,
    tags json NOT NULL,
    metadata json NOT NULL,
    accepted_at timestamptz NOT NULL,
    send_at timestamptz,
    expires_at timestamptz NOT NULL,
    traceparent text,
    request_id text,
    stored_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX emails_owner_status ON emails (owner_id, status);

CREATE TABLE recipients (
    email_id uuid NOT NULL REFERENCES emails ON DELETE CASCADE,
    position smallint NOT NULL,
    kind text NOT NULL,
    address text NOT NULL,
    status text NOT NULL,
    tries smallint NOT NULL DEFAULT 0,
    -- When something is to be done: the next attempt, the end of the lease while sending. Null: nothing.
    due_at timestamptz,
    -- The process that is sending.
    holder uuid,
    size_bytes int NOT NULL,
    PRIMARY KEY (email_id, position)
);
CREATE INDEX recipients_due ON recipients (due_at) WHERE due_at IS NOT NULL;
-- These rows change several times within a second of their birth.
ALTER TABLE recipients SET (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 2000);

CREATE TABLE attempts (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    email_id uuid NOT NULL,
    position smallint NOT NULL,
    at timestamptz NOT NULL,
    -- Empty when the mail was refused here and no relay was asked.
    host text NOT NULL,
    outcome text NOT NULL,
    smtp_code smallint,
    smtp_reply text NOT NULL,
    tls boolean NOT NULL,
    FOREIGN KEY (email_id, position) REFERENCES recipients ON DELETE CASCADE
);
CREATE INDEX attempts_of_email ON attempts (email_id);

CREATE TABLE attachments (
    email_id uuid NOT NULL REFERENCES emails ON DELETE CASCADE,
    position smallint NOT NULL,
    filename text NOT NULL,
    content_type text NOT NULL,
    content_id text,
    content bytea NOT NULL,
    PRIMARY KEY (email_id, position)
);
