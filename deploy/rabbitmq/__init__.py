"""What the broker is given before the services come."""
