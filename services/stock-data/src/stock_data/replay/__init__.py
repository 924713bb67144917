"""The replay feed: historical days streamed over and over as simulated ticks."""
