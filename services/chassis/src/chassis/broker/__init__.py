"""Messaging on RabbitMQ: publishing with confirms, one place that settles, requests with deadlines."""
