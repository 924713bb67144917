"""Processes of low priority for work whose cost a tenant decides."""
