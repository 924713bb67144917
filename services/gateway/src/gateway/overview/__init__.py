"""One answer gathered from several services."""
