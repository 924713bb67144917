-- Mails that came back, for the timeline. The same message counts once.
CREATE TABLE bounces (
    email_id uuid NOT NULL,
    position smallint NOT NULL,
    digest bytea NOT NULL,
    at timestamptz NOT NULL DEFAULT now(),
    kind text NOT NULL,
    detail text NOT NULL,
    PRIMARY KEY (email_id, position, digest),
    FOREIGN KEY (email_id, position) REFERENCES recipients ON DELETE CASCADE
);
