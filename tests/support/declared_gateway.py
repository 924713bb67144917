"""The gateway's routes as they are wired, without a server behind them."""

from __future__ import annotations

import json
from functools import cache
from typing import Any

from gateway import documents
from gateway.app import GatewayApp
from gateway.reference.service import OPENAPI


@cache
def create() -> GatewayApp:
    """Return the application, always the same; nothing of it is opened."""
    return documents.declared()


@cache
def document() -> dict[str, Any]:
    """Return the OpenAPI document of all routes."""
    found: dict[str, Any] = json.loads(OPENAPI.read_bytes())
    return found
