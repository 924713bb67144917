"""The email service: accepts mails, delivers them by SMTP, and keeps what happened to each recipient."""
