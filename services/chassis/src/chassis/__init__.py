"""The shared kernel of the services: broker, database, cache, settings, logs, metrics, errors, health."""
