-- Templates of owners. A deleted one keeps its row, so that its numbers are never given again.
CREATE TABLE templates (
    owner_id text NOT NULL,
    name text NOT NULL,
    newest int NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    changed_at timestamptz NOT NULL DEFAULT now(),
    deleted_at timestamptz,
    PRIMARY KEY (owner_id, name)
);
-- A version never changes: mails name it.
CREATE TABLE template_versions (
    owner_id text NOT NULL,
    name text NOT NULL,
    version int NOT NULL,
    source json NOT NULL,
    request_key text,
    created_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (owner_id, name, version),
    FOREIGN KEY (owner_id, name) REFERENCES templates
);
CREATE UNIQUE INDEX template_versions_by_key ON template_versions (owner_id, request_key) WHERE request_key IS NOT NULL;

-- The version that a mail is made of, and what it is filled with until it was rendered.
ALTER TABLE emails ADD COLUMN template_name text;
ALTER TABLE emails ADD COLUMN template_version int;
ALTER TABLE emails ADD COLUMN template_data json;
