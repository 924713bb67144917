"""Webhooks: events of an owner, delivered to URLs of that owner by signed HTTP requests."""
