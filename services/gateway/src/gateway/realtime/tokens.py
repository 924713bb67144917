"""Short-lived tokens for browsers: signed, never stored, and never with more rights than the key."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import dataclass, replace
from typing import Any

from chassis import shares
from chassis.errors import Forbidden, Unauthenticated
from contracts.scopes import Scope
from gateway.http.principal import Principal
from gateway.identity import signed_texts
from gateway.identity.refusals import Expired
from gateway.realtime.access import Access, FindPrincipal

PREFIX = "tw_rt_"
SHORTEST_S = 10
LONGEST_S = 3600
MOST_CHANNELS = 200
_CHALLENGE = {"www-authenticate": 'Bearer realm="tickwire", error="invalid_token"'}


@dataclass(frozen=True)
class Grant:
    """The content of a token: its key, its expiry (Unix time), and its limits (None: those of the key).

    `owner_id` is the owner of the key; it is empty in tokens of older releases.
    """

    key_id: str
    expires_at: int
    scopes: frozenset[str] | None
    channels: frozenset[str] | None
    owner_id: str = ""


def signing_keys(pepper: str, previous: str | None = None) -> tuple[bytes, ...]:
    """Return the signing keys of tokens, which have no other purpose: the first signs, all verify."""
    return signed_texts.signing_keys(pepper, previous, "tickwire realtime token")


def sign(key: bytes, grant: Grant) -> str:
    """Return `grant` as a token."""
    document: dict[str, Any] = {"k": grant.key_id, "e": grant.expires_at, "u": grant.owner_id}
    if grant.scopes is not None:
        document["s"] = sorted(grant.scopes)
    if grant.channels is not None:
        document["c"] = sorted(grant.channels)
    return PREFIX + signed_texts.sign(key, document)


def read(keys: Sequence[bytes], token: str, *, now: float) -> Grant:
    """Return the rights that `token` grants.

    Raise `Unauthenticated` if it is forged, damaged or expired.
    """
    document = signed_texts.read(keys, token.removeprefix(PREFIX))
    if document is None:
        raise _refused("The token is not valid; get a new one with POST /v1/realtime/tokens.")
    if document["e"] <= now:
        raise Expired(
            "The token has expired; get a new one with POST /v1/realtime/tokens.", headers=_CHALLENGE
        )
    scopes, channels = document.get("s"), document.get("c")
    return Grant(
        document["k"],
        document["e"],
        None if scopes is None else frozenset(scopes),
        None if channels is None else frozenset(channels),
        document.get("u", ""),
    )


class TokenService:
    """Creates tokens, and authenticates callers with a key or a token."""

    def __init__(
        self,
        pepper: str,
        *,
        previous_pepper: str | None = None,
        authenticate: Callable[[str | None, str | None], Awaitable[Principal]],
        find: FindPrincipal,
    ) -> None:
        self._signing_keys = signing_keys(pepper, previous_pepper)
        self._authenticate = authenticate
        self._find = find

    def issue(
        self,
        principal: Principal,
        *,
        ttl_s: int,
        scopes: Collection[Scope] | None = None,
        channels: Collection[str] | None = None,
    ) -> tuple[str, int]:
        """Return a token of `principal` and its expiry (Unix time). Raise `Forbidden` for a missing right."""
        if not principal.has_key:
            raise Forbidden(
                "An access token opens sockets and streams directly; only API keys create realtime tokens."
            )
        missing = sorted(scope for scope in scopes or () if not principal.may(scope))
        if missing:
            raise Forbidden(f"The key does not have the scope {missing[0]}; a token cannot have it either.")
        expires_at = int(time.time()) + ttl_s
        if principal.expires_at is not None:
            # The expiry of the key or of its previous secret, which a token does not outlive.
            expires_at = min(expires_at, int(principal.expires_at.timestamp()))
        grant = Grant(
            principal.key_id,
            expires_at,
            None if scopes is None else frozenset(scopes),
            None if channels is None else frozenset(channels),
            principal.owner_id,
        )
        return sign(self._signing_keys[0], grant), expires_at

    async def authenticate(self, text: str | None, address: str | None = None) -> Access:
        """Return the owner of the key or token `text`, sent from `address`. Raise `Unauthenticated`."""
        if text is None or not text.startswith(PREFIX):
            caller = await self._authenticate(text, address)
            # The expiry of the secret: a key that is read again later no longer has that of a previous one.
            ends_at = None if caller.expires_at is None else caller.expires_at.timestamp()
            return Access(caller, expires_at=ends_at)
        grant = read(self._signing_keys, text, now=time.time())
        # Each use is a query: of the owner, not of those that this service makes for itself.
        shares.current.set(grant.owner_id or grant.key_id)
        principal = await self._find(grant.key_id)
        if principal is None:
            raise _refused("The API key behind the token has expired or was revoked.")
        return Access(principal, grant.scopes, grant.channels, float(grant.expires_at))

    async def authenticate_stream(self, text: str | None, address: str | None = None) -> Principal:
        """Return the caller of an event stream, with the rights of the key or token."""
        access = await self.authenticate(text, address)
        principal = access.principal
        if access.expires_at is None:
            return principal
        scopes = principal.scopes if access.scopes is None else principal.scopes & access.scopes
        return replace(principal, scopes=scopes, channels=access.channels, ends_at=access.expires_at)


def _refused(detail: str) -> Unauthenticated:
    return Unauthenticated(detail, headers=_CHALLENGE)
