"""Schedules of tasks and batches."""
