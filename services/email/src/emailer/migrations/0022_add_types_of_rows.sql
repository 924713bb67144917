-- Rows as statements get them. The driver checks each value of an array, which takes longer than to encode it; of an
-- array of rows it checks the rows alone. For rows of a few values that gains nothing. A statement that gets other columns one day needs a type of its own, since
-- processes of the release before go on using these.
CREATE TYPE given_email AS (
    id uuid,
    owner_id text,
    status text,
    sender text,
    subject text,
    letter json,
    text_body text,
    html_body text,
    attachment_count int,
    recipient_count int,
    tags json,
    metadata json,
    accepted_at timestamptz,
    send_at timestamptz,
    expires_at timestamptz,
    traceparent text,
    request_id text,
    stream text,
    message_id text,
    template_name text,
    template_version int,
    template_data json
);

CREATE TYPE given_recipient AS (
    email_id uuid,
    position smallint,
    kind text,
    address text,
    status text,
    due_at timestamptz,
    size_bytes int,
    expires_at timestamptz,
    stream text,
    owner_id text,
    domain text
);

-- `at` and what follows are those of the attempt, NULL when none was made.
CREATE TYPE given_outcome AS (
    email_id uuid,
    position smallint,
    status text,
    due_at timestamptz,
    tries smallint,
    doubts smallint,
    at timestamptz,
    host text,
    result text,
    smtp_code smallint,
    smtp_reply text,
    tls boolean
);
