"""The dashboards: built from Python, committed as JSON, read by Grafana as they are."""
