"""Wiring: settings in, application out. Nothing is opened here."""

from __future__ import annotations

from fastapi import FastAPI

from chassis.http import create_service_app
from contracts.topology import EMAIL
from emailer.resources import Resources
from emailer.settings import EmailSettings


def create_app(settings: EmailSettings) -> tuple[FastAPI, Resources]:
    """The internal HTTP application (ops routes), and the resources that its lifespan opens and closes."""
    resources = Resources(settings)
    app = create_service_app(resources.runtime, title=EMAIL, on_open=resources.open, on_close=resources.close)
    return app, resources
