"""Writing of mails: from the stored mail to the bytes that are sent to a relay."""
