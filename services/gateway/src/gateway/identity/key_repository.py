"""API keys, and the used login addresses that keys have made: functions on the caller's connection."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime

from chassis import queries
from chassis.postgres import Connection, Row, affected_rows
from contracts.scopes import Scope, allowed
from gateway.http.principal import Principal
from gateway.identity.inputs import KeysQuery

_SQL = queries.of("gateway")

_SCOPES = frozenset(map(str, Scope))


@dataclass(frozen=True, slots=True)
class UsableKey:
    """A usable key: its owner with effective rights, and the digests of its secrets.

    `previous` is the digest of the secret before the last rotation, which works until `previous_until`.
    """

    principal: Principal
    digest: bytes
    previous: bytes | None = None
    previous_until: datetime | None = None


async def find_usable(connection: Connection, key_ids: Collection[str]) -> dict[str, UsableKey]:
    """Return the usable keys among `key_ids`, by id."""
    usable = {}
    for row in await connection.fetch(_SQL["find_usable_keys"], list(key_ids)):
        granted = known_scopes(row["scopes"])
        principal = Principal(
            row["user_id"],
            row["user_name"],
            row["role"],
            row["id"],
            allowed(granted, is_administrator=row["role"] == "admin"),
            row["expires_at"],
            granted,
        )
        usable[row["id"]] = UsableKey(principal, row["digest"], row["previous_digest"], row["previous_until"])
    return usable


async def find_secret(connection: Connection, key_id: str) -> Row | None:
    """Return the digests of a key's secrets, whatever the state of the key."""
    return await connection.fetchrow(_SQL["find_secret"], key_id)


async def touch(connection: Connection, used: Mapping[str, datetime]) -> None:
    """Record the times at which keys were last used, by key id."""
    await connection.execute(_SQL["touch_keys"], list(used), list(used.values()))


async def insert(
    connection: Connection,
    key_id: str,
    *,
    user_id: int,
    name: str,
    digest: bytes,
    scopes: Collection[str],
    expires_at: datetime | None = None,
    parent_id: str | None = None,
) -> None:
    """Store a key with the `digest` of its secret; `parent_id` is the key that created it, if any."""
    await connection.execute(
        _SQL["insert_key"], key_id, user_id, name, digest, list(scopes), expires_at, parent_id
    )


async def count_live(connection: Connection, user_id: int) -> int:
    """Return how many keys of a user are neither revoked nor expired."""
    return int(await connection.fetchval(_SQL["count_live_keys"], user_id))


async def remove_ended(connection: Connection, *, keep_days: int, most: int) -> int:
    """Remove up to `most` keys that ended more than `keep_days` ago; return how many there were.

    Keys that have made others stay until those are removed, and keys that were made on the host stay.
    """
    return affected_rows(await connection.execute(_SQL["remove_ended_keys"], keep_days, most))


async def remove_surplus(connection: Connection, user_id: int, *, keep: int, most: int) -> int:
    """Remove up to `most` keys of a user that ended before the newest `keep`; return how many there were."""
    return affected_rows(await connection.execute(_SQL["remove_surplus_keys"], user_id, keep, most))


async def get(connection: Connection, key_id: str) -> Row | None:
    """Return a key by id; its secret is not stored."""
    return await connection.fetchrow(_SQL["get_key"], key_id)


async def lock(connection: Connection, key_id: str) -> None:
    """Lock a key against other changes until the transaction ends."""
    await connection.execute(_SQL["lock_key"], key_id)


async def page(connection: Connection, user_id: int, query: KeysQuery) -> list[Row]:
    """Return a page of the keys of a user in the order of creation, plus one more key if there is one."""
    return await connection.fetch(
        _SQL["list_keys"],
        user_id,
        *query.place,
        query.limit + 1,
        query.status,
        query.created_after,
        query.created_before,
    )


async def has_ancestor(connection: Connection, key_id: str, ancestor_id: str) -> bool:
    """Return whether `ancestor_id` created the key, directly or through keys that it created."""
    return bool(await connection.fetchval(_SQL["has_ancestor"], key_id, ancestor_id))


async def rotate(
    connection: Connection,
    key_id: str,
    *,
    digest: bytes,
    rotated_at: datetime,
    previous_until: datetime | None,
) -> None:
    """Give a key a new secret; the previous one works until `previous_until`."""
    await connection.execute(_SQL["rotate_key"], key_id, digest, rotated_at, previous_until)


async def rehash(connection: Connection, key_id: str, before: bytes, after: bytes) -> None:
    """Replace the digest of one of a key's secrets by its digest under a new pepper."""
    await connection.execute(_SQL["rehash_key"], key_id, before, after)


async def revoke(connection: Connection, key_id: str) -> bool:
    """Revoke a key; return False when it was revoked before."""
    return await connection.fetchval(_SQL["revoke_key"], key_id) is not None


async def revoke_others(connection: Connection, user_id: int, key_id: str) -> list[str]:
    """Revoke all keys of a user but one; return their ids."""
    rows = await connection.fetch(_SQL["revoke_other_keys"], user_id, key_id)
    return [row["id"] for row in rows]


async def use_login(connection: Connection, login_id: str, expires_at: datetime) -> bool:
    """Mark a login address as used, and forget old ones; return False if it was used before."""
    is_new = await connection.fetchval(_SQL["use_login"], login_id, expires_at) is not None
    if is_new:
        await connection.execute(_SQL["forget_old_logins"])
    return is_new


def known_scopes(names: Collection[str]) -> frozenset[Scope]:
    """Return the stored `names` that are still scopes."""
    return frozenset(Scope(name) for name in names if name in _SCOPES)
