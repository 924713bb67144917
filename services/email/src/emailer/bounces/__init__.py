"""Bounces: mails that come back, matched to their recipient by the return path, read, and recorded."""
