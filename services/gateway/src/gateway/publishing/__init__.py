"""Publications to whoever listens to a channel: in this process, and announced to the other gateways."""
