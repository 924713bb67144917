-- Attachments of accepted mails that email could not take yet. The messages wait with their bytes, each as a row of the
-- outbox, and go there once email has them.
CREATE TABLE waiting_parcels (
    id uuid PRIMARY KEY,
    -- In the order in which owners take turns.
    owner_id text COLLATE "C" NOT NULL,
    mail_count int NOT NULL,
    content bytea NOT NULL,
    -- Of the content and of the messages.
    size_bytes bigint NOT NULL,
    attempts int NOT NULL DEFAULT 0,
    created_at timestamptz NOT NULL DEFAULT now(),
    -- Also the end of the lease of who sends it now.
    due_at timestamptz NOT NULL DEFAULT now()
);
-- Most files are compressed already.
ALTER TABLE waiting_parcels ALTER COLUMN content SET STORAGE EXTERNAL;
CREATE INDEX waiting_parcels_due ON waiting_parcels (owner_id, due_at);

CREATE TABLE waiting_parcel_messages (
    parcel_id uuid NOT NULL REFERENCES waiting_parcels ON DELETE CASCADE,
    position int NOT NULL,
    message_id uuid NOT NULL,
    exchange text NOT NULL,
    routing_key text NOT NULL,
    message_type text NOT NULL,
    headers jsonb NOT NULL,
    body bytea NOT NULL,
    messages int NOT NULL,
    PRIMARY KEY (parcel_id, position)
);
