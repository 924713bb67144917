"""Low-priority processes for work whose cost is decided by tenants."""
