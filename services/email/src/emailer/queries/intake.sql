-- name: store_emails
INSERT INTO emails (
    id, owner_id, status, sender, subject, letter, text_body, html_body, attachment_count, recipient_count,
    tags, metadata, accepted_at, send_at, expires_at, traceparent, request_id, stream, message_id,
    template_name, template_version, template_data
)
SELECT * FROM unnest($1::given_email[])
ON CONFLICT (id) DO NOTHING
RETURNING id

-- name: store_recipients
INSERT INTO recipients (
    email_id, position, kind, address, status, due_at, size_bytes, expires_at, stream, owner_id, domain, ready
)
SELECT *, coalesce(due_at <= now(), false) FROM unnest($1::given_recipient[])

-- name: store_attachments
INSERT INTO attachments (email_id, position, filename, content_type, content_id, content, upload_id)
SELECT * FROM unnest($1::uuid[], $2::smallint[], $3::text[], $4::text[], $5::text[], $6::bytea[], $7::uuid[])
