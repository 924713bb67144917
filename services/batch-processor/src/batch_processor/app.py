"""The application: wiring only. All work comes over the broker."""

from __future__ import annotations

from batch_processor.operations import discover
from batch_processor.resources import Resources
from batch_processor.settings import BatchProcessorSettings
from chassis.asgi import Application
from chassis.http import create_service_app
from contracts.topology import BATCH_PROCESSOR


def create_app(settings: BatchProcessorSettings) -> Application:
    """Return the service with the operations that are installed, wired; its lifespan opens and closes it."""
    resources = Resources(settings, discover())
    health = resources.runtime.health
    return Application(create_service_app(health, title=BATCH_PROCESSOR, lifespan=resources.open), health)
