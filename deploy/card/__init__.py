"""The summary card printed when a stack has started. It imports only the standard library."""
