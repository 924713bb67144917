"""Bounces: mails that came back, handed in by a mail server."""
