-- The attachments of mails that are on their way, which go past the broker: an upload with `mails_left` is a parcel, and
-- so many of its mails are not stored yet.
ALTER TABLE uploads ADD COLUMN mails_left int;
CREATE INDEX uploads_that_are_parcels ON uploads (owner_id) WHERE mails_left IS NOT NULL;
