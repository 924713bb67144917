"""The internal application: ops routes only; all work comes over the broker."""

from __future__ import annotations

from fastapi import FastAPI

from batch_processor.operations import discover
from batch_processor.resources import Resources
from batch_processor.settings import BatchProcessorSettings
from chassis.http import create_service_app


def create_app(settings: BatchProcessorSettings) -> FastAPI:
    """The service, wired and closed; its lifespan opens it. `app.state.resources` holds its parts."""
    resources = Resources(settings, discover())
    app = create_service_app(
        resources.runtime, title="batch-processor", on_open=resources.open, on_close=resources.close
    )
    app.state.resources = resources
    return app
