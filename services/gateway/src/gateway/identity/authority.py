"""The current rights of the makers of stored requests (schedules, alerts), which may be fewer by now."""

from __future__ import annotations

from collections.abc import Collection
from typing import NamedTuple

from chassis.postgres import Connection
from contracts.scopes import Scope, allowed
from gateway.http.principal import TOKEN_PREFIX, Principal
from gateway.identity import key_repository, user_repository


class Maker(NamedTuple):
    """The user who stored a request, and the id of the credential that was used.

    `scopes` are those of an access token at that time; the scopes of a key are looked up.
    """

    owner_id: str
    key_id: str
    scopes: frozenset[Scope] = frozenset()


async def holders(connection: Connection, scope: Scope, makers: Collection[Maker]) -> set[Maker]:
    """Return the `makers` who have `scope` now, read in the caller's transaction."""
    found = await principals(connection, makers)
    return {maker for maker, principal in found.items() if principal.may(scope)}


async def principals(connection: Connection, makers: Collection[Maker]) -> dict[Maker, Principal]:
    """Return the current rights of `makers`, without those who have none any more.

    A request made with an API key has the current rights of the key: none once it is revoked or expired, or
    its user is disabled. An access token has expired long since, so its requests have the scopes that it had
    when they were made, limited to the current rights of their user.
    """
    found: dict[Maker, Principal] = {}
    of_keys = {maker for maker in makers if not maker.key_id.startswith(TOKEN_PREFIX)}
    usable = await key_repository.find_usable(connection, {maker.key_id for maker in of_keys})
    for maker in of_keys:
        key = usable.get(maker.key_id)
        if key is not None and key.principal.owner_id == maker.owner_id:
            found[maker] = key.principal
    for maker in set(makers) - of_keys:
        user = await user_repository.get(connection, int(maker.owner_id))
        if user is None or user["status"] != "active":
            continue
        scopes = allowed(maker.scopes, is_administrator=user["role"] == "admin")
        found[maker] = Principal(
            user["id"], user["name"], user["role"], maker.key_id, scopes, granted=maker.scopes
        )
    return found
