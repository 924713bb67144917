"""Requests to addresses that callers choose: only public ones, checked at the moment of connecting."""
