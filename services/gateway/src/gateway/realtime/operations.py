"""The operations of the HTTP API that a socket may call."""

from __future__ import annotations

from typing import Any

from gateway.http.principal import Principal
from gateway.realtime.codes import CommandError, ErrorCode


async def no_operations(principal: Principal, name: str, params: Any) -> Any:  # noqa: ARG001
    """Refuse every call: this gateway offers no operation to sockets."""
    raise CommandError(ErrorCode.METHOD_NOT_FOUND, f"{name!r} is no operation that only reads.")
