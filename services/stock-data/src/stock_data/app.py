"""The application: wiring only."""

from __future__ import annotations

from chassis.asgi import Application
from chassis.http import create_service_app
from contracts.topology import STOCK_DATA
from stock_data.resources import Resources
from stock_data.settings import StockDataSettings


def create_app(settings: StockDataSettings) -> Application:
    """Return the service, wired; its lifespan opens and closes it."""
    resources = Resources(settings)
    health = resources.runtime.health
    return Application(create_service_app(health, title=STOCK_DATA, lifespan=resources.open), health)
