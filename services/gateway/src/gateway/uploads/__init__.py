"""Uploads at the gateway: files for mails, passed on to email as they come."""
