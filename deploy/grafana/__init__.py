"""The dashboards: built from Python, committed as JSON, loaded by Grafana unchanged."""
