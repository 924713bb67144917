-- What a list shows of each mail whose attachments waited here. A row stays until email has reported on the mail: on the
-- way there, in the outbox and the broker, nobody else could list it. Only its acceptance knows whether it ended here.
CREATE TABLE waiting_mails (
    email_id uuid PRIMARY KEY REFERENCES acceptances ON DELETE CASCADE,
    owner_id text NOT NULL,
    -- NULL without one of its own: email has a default.
    sender text,
    subject text NOT NULL,
    tags text[] NOT NULL,
    recipients text[] NOT NULL,
    send_at timestamptz,
    expires_at timestamptz
);
CREATE INDEX waiting_mails_of_owner ON waiting_mails (owner_id, email_id);
