-- Lists and bulk actions go through the mails of one owner in one status, newest or oldest first.
CREATE INDEX emails_of_owner ON emails (owner_id, status, id);
DROP INDEX emails_owner_status;
