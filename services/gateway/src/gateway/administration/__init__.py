"""Administration: parked messages, and the status of all services."""
