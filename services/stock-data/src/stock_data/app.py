"""The application: wiring only."""

from __future__ import annotations

from fastapi import FastAPI

from chassis.http import create_service_app
from stock_data.resources import Resources
from stock_data.settings import StockDataSettings


def create_app(settings: StockDataSettings) -> FastAPI:
    """The internal HTTP application; its lifespan opens and closes the service."""
    resources = Resources(settings)
    app = create_service_app(
        resources.runtime, title="stock-data", on_open=resources.open, on_close=resources.close
    )
    app.state.resources = resources
    return app
