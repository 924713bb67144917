"""Writing mails: from the stored mail to the bytes that a relay takes."""
