"""The gateway's routes as they are wired, without a server behind them."""

from __future__ import annotations

from functools import cache
from typing import Any

from chassis.settings import load
from gateway.app import GatewayApp, create_quart
from gateway.reference import openapi
from gateway.resources import Resources
from gateway.settings import GatewaySettings


def settings() -> GatewaySettings:
    """Return settings of a gateway without servers."""
    return load(
        GatewaySettings,
        {
            "RABBITMQ_URL": "amqp://gateway:secret@127.0.0.1:1/tickwire",
            "POSTGRES_DSN": "postgresql://gateway:secret@127.0.0.1:1/gateway",
            "MEMCACHED_ADDRESS": "127.0.0.1:1",
            "GATEWAY_KEY_PEPPER": "00" * 32,
        },
    )


@cache
def create() -> GatewayApp:
    """Return the application, always the same; nothing of it is opened."""
    return create_quart(given := settings(), Resources(given))


@cache
def document() -> dict[str, Any]:
    """Return the OpenAPI document of all routes."""
    return openapi.build(create().server.endpoints)
