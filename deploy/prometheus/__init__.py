"""Objectives and alerts: `rules/objectives.yml` is built from Python, `rules/causes.yml` is hand-written."""
