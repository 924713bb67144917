"""Sending mails: whose turn it is, the connections to relays, what replies mean, and what is recorded."""
