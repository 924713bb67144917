-- name: store_emails
INSERT INTO emails (
    id, owner_id, status, sender, subject, letter, text_body, html_body, attachment_count, recipient_count,
    tags, metadata, accepted_at, send_at, expires_at, traceparent, request_id, stream, message_id,
    template_name, template_version, template_data
)
SELECT * FROM unnest(
    $1::uuid[], $2::text[], $3::text[], $4::text[], $5::text[], $6::json[], $7::text[], $8::text[], $9::int[],
    $10::int[], $11::json[], $12::json[], $13::timestamptz[], $14::timestamptz[], $15::timestamptz[],
    $16::text[], $17::text[], $18::text[], $19::text[], $20::text[], $21::int[], $22::json[]
)
ON CONFLICT (id) DO NOTHING
RETURNING id

-- name: store_recipients
INSERT INTO recipients (
    email_id, position, kind, address, status, due_at, size_bytes, expires_at, stream, owner_id, domain, ready
)
SELECT *, coalesce(due_at <= now(), false) FROM unnest(
    $1::uuid[], $2::smallint[], $3::text[], $4::text[], $5::text[], $6::timestamptz[], $7::int[],
    $8::timestamptz[], $9::text[], $10::text[], $11::text[]
) AS given (email_id, position, kind, address, status, due_at, size_bytes, expires_at, stream, owner_id, domain)

-- name: store_attachments
INSERT INTO attachments (email_id, position, filename, content_type, content_id, content, upload_id)
SELECT * FROM unnest($1::uuid[], $2::smallint[], $3::text[], $4::text[], $5::text[], $6::bytea[], $7::uuid[])
