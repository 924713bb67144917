"""Login addresses: each signs one browser in to the console, once, with a key that expires by itself.

The address has a signed token after its `#`, which browsers never send, so it is in no log and no Referer.
The page at the address sends the token in a body and gets a key that lasts half a day. It is a child of the
key that requested the address: it is listed, audited and revoked like any other, and ends with its parent.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from chassis.errors import Forbidden, Unauthenticated
from chassis.postgres import Connection, Postgres
from contracts.scopes import Scope
from gateway.http.calls import Call
from gateway.http.principal import Principal
from gateway.identity import key_repository, keys, signed_texts
from gateway.identity.inputs import LoginInput, LoginView, SessionInput, SessionView
from gateway.identity.key_service import KeyService
from gateway.identity.refusals import refusal

PREFIX = "tw_login_"
PAGE = "/console/login"
SESSION_LASTS = timedelta(hours=12)
_ANOTHER = "Print a new one on the host of the gateway: make login"


class LoginService:
    """Creates login addresses, and signs in the first browser that uses each."""

    def __init__(
        self,
        postgres: Postgres,
        *,
        key_service: KeyService,
        pepper: str,
        previous_pepper: str | None = None,
    ) -> None:
        self._postgres = postgres
        self._keys = key_service
        self._signing_keys = signed_texts.signing_keys(pepper, previous_pepper, "tickwire login address")

    async def create(self, call: Call, body: LoginInput) -> LoginView:
        """Return a login address for the caller, an administrator with an API key; nothing is stored."""
        caller = call.principal
        if not caller.has_key:
            raise Forbidden("Only an API key can create login addresses; an access token signs in directly.")
        expires_at = int(time.time()) + body.ttl_s
        document: dict[str, Any] = {
            "id": secrets.token_urlsafe(16),
            "key": caller.key_id,
            "until": expires_at,
        }
        if caller.expires_at is not None:
            # The secret may be a previous one that works for a while; its logins end with it.
            document["end"] = int(caller.expires_at.timestamp())
        token = PREFIX + signed_texts.sign(self._signing_keys[0], document)
        return LoginView(path=f"{PAGE}#{token}", expires_at=datetime.fromtimestamp(expires_at, UTC))

    async def exchange(self, _: Call, body: SessionInput) -> SessionView:
        """Return a key that lasts half a day at most, for an unused token.

        Raise `Unauthenticated` if the token is invalid, expired or used, or if its key has ended.
        """
        login = signed_texts.read(self._signing_keys, body.token.removeprefix(PREFIX))
        if login is None or not body.token.startswith(PREFIX):
            raise _refused("This login address is damaged, or from another installation.")
        if login["until"] <= time.time():
            raise _refused("This login address has expired.")
        async with self._postgres.transaction() as connection:
            parent, key = await self._use(connection, login), keys.new_key()
            ends_at = datetime.now(UTC) + SESSION_LASTS
            if parent.expires_at is not None:
                ends_at = min(ends_at, parent.expires_at)
            await self._keys.make_child(
                connection,
                parent,
                key,
                user_id=parent.user_id,
                name="console, by login address",
                scopes=sorted(parent.granted),
                expires_at=ends_at,
            )
        return SessionView(key=str(key), key_id=key.id, expires_at=ends_at)

    async def _use(self, connection: Connection, login: Mapping[str, Any]) -> Principal:
        """Mark a login as used and return the owner of the key that made it, with its current rights."""
        until = datetime.fromtimestamp(login["until"], UTC)
        if not await key_repository.use_login(connection, login["id"], until):
            raise _refused("This login address was used before; each opens the console once.")
        usable = (await key_repository.find_usable(connection, [login["key"]])).get(login["key"])
        if usable is None or not usable.principal.may(Scope.ADMIN):
            raise _refused("The API key that created this login address has ended or lacks the scope admin.")
        principal, end = usable.principal, login.get("end")
        if end is None:
            return principal
        # The secret that made the address was rotated away, or its key expires.
        ends_at = datetime.fromtimestamp(end, UTC)
        return replace(principal, expires_at=min(ends_at, principal.expires_at or ends_at))


def _refused(detail: str) -> Unauthenticated:
    return refusal("login", f"{detail} {_ANOTHER}")
