"""Pushes: WebSockets, event streams, channels and presence."""
