"""The rights of a connection: those of the caller, narrowed by the token that it came with."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from chassis.errors import Forbidden
from contracts.scopes import Scope
from gateway.http.principal import Principal


@dataclass(frozen=True, slots=True)
class Access:
    """A caller on a connection.

    `scopes` and `channels` are the bounds of a short-lived token (None: no bounds beside the key's own), and
    `expires_at` is its end in Unix time.
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
            raise Forbidden(f"{channel} needs the scope {scope}, which this key or token does not carry.")


# Of a key or token, and of the address that it came from.
Authenticate = Callable[[str | None, str | None], Awaitable[Access]]
# The owner of a key with the rights of now, or None when the key may not be used any more.
FindPrincipal = Callable[[str], Awaitable[Principal | None]]
# A caller with the rights of now, or None when it may not go on.
RenewPrincipal = Callable[[Principal], Awaitable[Principal | None]]
