"""Sending of mails: the order of recipients, connections to relays, the meaning of replies, and recording."""
