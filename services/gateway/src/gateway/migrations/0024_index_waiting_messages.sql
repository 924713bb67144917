-- A mail that waits is found by its id, to cancel or to reschedule it.
CREATE INDEX waiting_parcel_messages_of_mail ON waiting_parcel_messages (message_id);
