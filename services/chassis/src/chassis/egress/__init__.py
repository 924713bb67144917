"""Requests to addresses that callers choose: public ones only, checked at the moment of connecting."""
