"""The definitions that the broker imports before the services connect."""
