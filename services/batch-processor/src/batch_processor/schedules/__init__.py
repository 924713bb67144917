"""Schedules: due times by cron, and the runs that they lead to."""
