"""Uploads whose senders may lose their rights before everything has arrived."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress

from chassis.errors import DatabaseUnavailable
from contracts.scopes import Scope
from gateway.http.principal import Principal

CHECK_EVERY_S = 5.0

# Returns a caller with its current rights. Raises `Unauthenticated` if it has none any more.
Renew = Callable[[Principal], Awaitable[Principal]]


async def while_permitted(
    parts: AsyncIterator[bytes], caller: Principal, scope: Scope | None, renew: Renew
) -> AsyncIterator[bytes]:
    """Yield `parts`. Raise `Unauthenticated` or `Forbidden` once `caller` has lost its key or `scope`.

    The rights are looked at every few seconds, and before the end, which has an effect.
    """
    checked_at = time.monotonic()
    async for part in parts:
        yield part
        if time.monotonic() - checked_at > CHECK_EVERY_S:
            # The rights may be unknown for a while: nothing that arrives runs before the end.
            with suppress(DatabaseUnavailable):
                await _check(caller, scope, renew)
            checked_at = time.monotonic()
    if time.monotonic() - checked_at > CHECK_EVERY_S:
        await _check(caller, scope, renew)


async def always_valid(principal: Principal) -> Principal:
    """Return the caller as it is: one that loses no rights."""
    return principal


async def _check(caller: Principal, scope: Scope | None, renew: Renew) -> None:
    renewed = await renew(caller)
    if scope is not None:
        renewed.require(scope)
