"""Objectives and alerts: objectives are built from Python into `rules/objectives.yml`, causes are written."""
