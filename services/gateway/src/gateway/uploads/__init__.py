"""Uploads at the gateway: files for mails, forwarded to email while they arrive."""
