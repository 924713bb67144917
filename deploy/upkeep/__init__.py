"""Life after the first day: rotate secrets, back up, restore, check an upgrade, bundle what support needs."""
