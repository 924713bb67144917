"""An answer that is assembled from parts, some of which may fail."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Mapping
from typing import TypeVar

from chassis.errors import ServiceError

T = TypeVar("T")


async def gather(parts: Mapping[str, Awaitable[T]]) -> tuple[dict[str, T], dict[str, ServiceError]]:
    """Wait for all parts; return the successful ones and the `ServiceError`s. Raise any other error."""
    came: dict[str, T] = {}
    failed: dict[str, ServiceError] = {}
    found = await asyncio.gather(*parts.values(), return_exceptions=True)
    for name, part in zip(parts, found, strict=True):
        if isinstance(part, ServiceError):
            failed[name] = part
        elif isinstance(part, BaseException):
            raise part
        else:
            came[name] = part
    return came, failed
