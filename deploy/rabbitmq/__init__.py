"""The definitions that the broker gets before the services connect."""
