"""Schedules: due times by cron, runs, and what becomes of them."""
