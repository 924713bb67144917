"""Limits on the requests of a caller, for each class of them, exact over all gateways."""
