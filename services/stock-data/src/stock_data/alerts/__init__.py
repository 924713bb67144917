"""Price alerts: stored for their owners, and watched by the replica that leads the feed."""
