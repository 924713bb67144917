"""Writes the OpenAPI and the AsyncAPI document of this release: `python -m gateway.documents`.

Building them takes a second of a processor. A gateway that did so itself, in a thread beside its event loop,
would answer everybody slowly meanwhile; it serves these files as they are.
"""

from __future__ import annotations

from pathlib import Path

import orjson

from chassis.settings import load
from gateway.app import GatewayApp, create_quart
from gateway.realtime.command_table import COMMANDS
from gateway.reference import asyncapi, openapi
from gateway.reference.schemas import Json
from gateway.reference.service import ASYNCAPI, OPENAPI
from gateway.resources import Resources
from gateway.settings import GatewaySettings

# Nothing is opened at these addresses.
_NOWHERE = {
    "RABBITMQ_URL": "amqp://gateway:secret@127.0.0.1:1/tickwire",
    "POSTGRES_DSN": "postgresql://gateway:secret@127.0.0.1:1/gateway",
    "MEMCACHED_ADDRESS": "127.0.0.1:1",
    "GATEWAY_KEY_PEPPER": "00" * 32,
}


def settings() -> GatewaySettings:
    """Return the default settings of a gateway without servers."""
    return load(GatewaySettings, _NOWHERE)


def declared() -> GatewayApp:
    """Return the application with all its routes; nothing of it is opened."""
    return create_quart(given := settings(), Resources(given))


def files() -> dict[Path, str]:
    """Return the text of both documents by their files."""
    endpoints = declared().server.endpoints
    return {
        OPENAPI: _lines(openapi.build(endpoints)),
        ASYNCAPI: _lines(asyncapi.build(endpoints, COMMANDS.values())),
    }


def _lines(document: Json) -> str:
    """Return a document with a line for each operation, channel and schema: a change shows where it is."""
    return _object(document, depth=3) + "\n"


def _object(value: object, *, depth: int) -> str:
    if not isinstance(value, dict) or not value or not depth:
        return orjson.dumps(value).decode()
    members = (
        f"{orjson.dumps(name).decode()}:{_object(member, depth=depth - 1)}" for name, member in value.items()
    )
    return "{\n" + ",\n".join(members) + "\n}"


if __name__ == "__main__":
    for file, text in files().items():
        file.parent.mkdir(exist_ok=True)
        file.write_text(text, encoding="utf-8")
