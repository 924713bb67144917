"""Suppression: addresses to which an owner's mails are not sent, and the rules that add them."""
