"""The messages between the services, one module per owning service, and the broker topology as data."""
