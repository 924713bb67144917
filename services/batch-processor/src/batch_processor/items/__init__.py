"""The payloads and the results of items in their stored forms."""
