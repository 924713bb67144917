"""The rights of a connection: those of the caller, limited by the token that was presented."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from chassis.errors import Forbidden
from contracts.scopes import Scope
from gateway.http.principal import Principal


@dataclass(frozen=True, slots=True)
class Access:
    """A caller on a connection.

    `scopes` and `channels` are the limits of a short-lived token (None: only those of the key), and
    `expires_at` is its expiry, or that of the key's secret, in Unix time.
    """

    principal: Principal
    scopes: frozenset[str] | None = None
    channels: frozenset[str] | None = None
    expires_at: float | None = None

    def may(self, scope: Scope, channel: str) -> bool:
        """Return whether the caller has the right `scope` on `channel` now."""
        return (
            self.principal.may(scope)
            and (self.scopes is None or scope in self.scopes)
            and (self.channels is None or channel in self.channels)
        )

    def require(self, scope: Scope, channel: str) -> None:
        """Raise `Forbidden` unless the caller has the right `scope` on `channel`."""
        if not self.may(scope, channel):
            raise Forbidden(f"{channel} needs the scope {scope}, which this key or token does not have.")

    def expiry(self) -> dict[str, Any]:
        """Return whether the access expires, and in how many seconds to renew it, as clients are told."""
        if self.expires_at is None:
            return {"expires": False}
        left = self.expires_at - time.time()
        # Client libraries ask for a new token only when this is over, and need time to get it.
        return {"expires": True, "ttl": max(1, int(left - min(10, left / 3)))}


# Takes a key or token, and the client address.
Authenticate = Callable[[str | None, str | None], Awaitable[Access]]
# Returns the owner of a key with current rights, or None if the key can no longer be used.
FindPrincipal = Callable[[str], Awaitable[Principal | None]]
# Returns a caller with current rights, or None if the connection must end.
RenewPrincipal = Callable[[Principal], Awaitable[Principal | None]]
