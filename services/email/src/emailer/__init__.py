"""The email service: accepts mails, delivers them by SMTP, and records what happened to each recipient."""
