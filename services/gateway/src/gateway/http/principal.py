"""The caller of a request or a socket, and its rights."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from chassis.errors import Forbidden
from contracts.scopes import Scope

TOKEN_PREFIX = "jwt:"  # noqa: S105 - the beginning of an id


@dataclass(frozen=True, slots=True)
class Principal:
    """A caller with its effective rights: the scopes of the key within what the user's role allows now.

    `granted` are the scopes that the key was created with; `expires_at` is the expiry of the credential.
    `key_id` names the credential; an access token of an issuer has an id with the prefix `TOKEN_PREFIX`.
    """

    user_id: int
    user_name: str
    role: str
    key_id: str
    scopes: frozenset[Scope]
    expires_at: datetime | None = None
    granted: frozenset[Scope] = frozenset()
    # The only channels that a short-lived token opens, and the expiry of a token in Unix time; None for a
    # key, except for that of a stream whose key or secret expires.
    channels: frozenset[str] | None = None
    ends_at: float | None = None

    @property
    def has_key(self) -> bool:
        """Return whether the caller has an API key, not an access token."""
        return not self.key_id.startswith(TOKEN_PREFIX)

    @property
    def token_scopes(self) -> list[str] | None:
        """The scopes of an access token, which are stored with what it creates; None for a key."""
        return None if self.has_key else sorted(self.granted)

    @property
    def owner_id(self) -> str:
        """The owner id under which other services store this user's objects."""
        return str(self.user_id)

    @property
    def is_admin(self) -> bool:
        """Return whether the caller may administer the installation."""
        return Scope.ADMIN in self.scopes

    def may(self, scope: Scope) -> bool:
        """Return whether the caller has `scope`."""
        return scope in self.scopes

    def require(self, *scopes: Scope) -> None:
        """Raise `Forbidden`, with the challenge of RFC 6750, when the caller lacks any of `scopes`."""
        missing = [scope for scope in scopes if scope not in self.scopes]
        if not missing:
            return
        needed = " ".join(missing)
        raise Forbidden(
            f"This needs the scope {needed}, which the key or the role of its user lacks.",
            headers={
                "www-authenticate": f'Bearer realm="tickwire", error="insufficient_scope", scope="{needed}"'
            },
        )
