"""Sender domains: proof of ownership in DNS, DKIM keys, and who may send as whom."""
