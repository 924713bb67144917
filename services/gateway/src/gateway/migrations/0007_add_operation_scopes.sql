-- The rights that a caller needs to name an operation.
ALTER TABLE operations ADD COLUMN required_scopes text[] NOT NULL DEFAULT '{}';
