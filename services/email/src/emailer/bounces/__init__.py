"""Bounces: mails that come back, led to their recipient by the return path, read, and recorded."""
