"""Mail templates: stored as immutable versions, rendered in separate processes."""
