"""Batches and tasks at the gateway: accept, upload, report."""
