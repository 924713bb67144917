"""The application: wiring only."""

from __future__ import annotations

from chassis.asgi import Application
from chassis.http import create_service_app
from contracts.topology import EMAIL
from emailer.resources import Resources
from emailer.settings import EmailSettings
from emailer.uploads import routes


def create_app(settings: EmailSettings) -> Application:
    """Return the wired application; its lifespan opens and closes the resources."""
    resources = Resources(settings)
    health = resources.runtime.health
    app = create_service_app(health, title=EMAIL, lifespan=resources.open)
    routes.add_routes(app, resources.uploads)
    return Application(app, health)
