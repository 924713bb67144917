"""Users and API keys in PostgreSQL: functions on the caller's connection."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime

import asyncpg

from chassis.errors import Conflict
from chassis.postgres import Connection
from contracts.scopes import Scope, allowed
from gateway.http.principal import Principal
from gateway.identity.inputs import KeysQuery, UsersQuery

Row = asyncpg.Record
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


class UserRepository:
    """Reads and writes users."""

    def __init__(self, queries: Mapping[str, str]) -> None:
        self._queries = queries

    async def insert(self, connection: Connection, *, name: str, email: str, role: str) -> Row:
        """Store a user. Raise `Conflict` if the address is taken."""
        row = await connection.fetchrow(self._queries["insert_user"], name, email, role)
        if row is None:
            raise Conflict(f"A user with the address {email} already exists.")
        return row

    async def get(self, connection: Connection, user_id: int) -> Row | None:
        """Return a user by id."""
        return await connection.fetchrow(self._queries["get_user"], user_id)

    async def find_by_address(self, connection: Connection, email: str) -> Row | None:
        """Return the user with this address, ignoring case."""
        return await connection.fetchrow(self._queries["find_user_by_address"], email)

    async def find_by_subject(self, connection: Connection, issuer: str, subject: str) -> Row | None:
        """Return the user that is linked to a subject of a token issuer."""
        return await connection.fetchrow(self._queries["find_user_of_subject"], issuer, subject)

    async def lock_subject(self, connection: Connection, issuer: str, subject: str) -> None:
        """Lock this subject against other transactions until this one ends."""
        await connection.execute(self._queries["lock_subject"], f"{issuer}\n{subject}")

    async def add_subject(self, connection: Connection, user_id: int, issuer: str, subject: str) -> None:
        """Link a subject of an issuer to a user."""
        await connection.execute(self._queries["insert_subject"], issuer, subject, user_id)

    async def lock(self, connection: Connection, user_id: int) -> Row | None:
        """Return a user by id, locked against other changes until the transaction ends."""
        return await connection.fetchrow(self._queries["lock_user"], user_id)

    async def update(self, connection: Connection, user_id: int, changes: Mapping[str, str]) -> Row:
        """Change the fields in `changes` of a locked user. Raise `Conflict` for a taken address."""
        values = [changes.get(name) for name in ("name", "email", "role", "status")]
        try:
            row = await connection.fetchrow(self._queries["update_user"], user_id, *values)
        except asyncpg.UniqueViolationError:
            raise Conflict(f"A user with the address {changes['email']} already exists.") from None
        assert row is not None, "a locked user cannot be deleted"
        return row

    async def page(self, connection: Connection, query: UsersQuery) -> list[Row]:
        """Return a page of users in the order of their ids, plus one more user if there is one."""
        return await connection.fetch(
            self._queries["list_users"],
            query.cursor or 0,
            query.limit + 1,
            query.role,
            query.status,
            query.created_after,
            query.created_before,
        )

    async def ensure_administrator(self, connection: Connection, email: str) -> int:
        """Make the user with this address an active administrator, and return its id."""
        return int(await connection.fetchval(self._queries["ensure_administrator"], email))


class KeyRepository:
    """Reads and writes API keys."""

    def __init__(self, queries: Mapping[str, str]) -> None:
        self._queries = queries

    async def find_usable(self, connection: Connection, key_ids: Collection[str]) -> dict[str, UsableKey]:
        """Return the usable keys among `key_ids`, by id."""
        usable = {}
        for row in await connection.fetch(self._queries["find_usable_keys"], list(key_ids)):
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
            usable[row["id"]] = UsableKey(
                principal, row["digest"], row["previous_digest"], row["previous_until"]
            )
        return usable

    async def find_secret(self, connection: Connection, key_id: str) -> Row | None:
        """Return the digests of a key's secrets, whatever the state of the key."""
        return await connection.fetchrow(self._queries["find_secret"], key_id)

    async def touch(self, connection: Connection, used: Mapping[str, datetime]) -> None:
        """Write when keys were last used."""
        await connection.execute(self._queries["touch_keys"], list(used), list(used.values()))

    async def insert(
        self,
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
        """Store a key."""
        await connection.execute(
            self._queries["insert_key"], key_id, user_id, name, digest, list(scopes), expires_at, parent_id
        )

    async def count_live(self, connection: Connection, user_id: int) -> int:
        """Return how many keys of a user are neither revoked nor expired."""
        return int(await connection.fetchval(self._queries["count_live_keys"], user_id))

    async def get(self, connection: Connection, key_id: str) -> Row | None:
        """Return a key by id; its secret is not stored."""
        return await connection.fetchrow(self._queries["get_key"], key_id)

    async def lock(self, connection: Connection, key_id: str) -> None:
        """Lock a key against other changes until the transaction ends."""
        await connection.execute(self._queries["lock_key"], key_id)

    async def page(self, connection: Connection, user_id: int, query: KeysQuery) -> list[Row]:
        """Return a page of the keys of a user in the order of creation, plus one more key if there is one."""
        return await connection.fetch(
            self._queries["list_keys"],
            user_id,
            *query.place,
            query.limit + 1,
            query.status,
            query.created_after,
            query.created_before,
        )

    async def has_ancestor(self, connection: Connection, key_id: str, ancestor_id: str) -> bool:
        """Return whether `ancestor_id` created the key, directly or through keys that it created."""
        return bool(await connection.fetchval(self._queries["has_ancestor"], key_id, ancestor_id))

    async def rotate(
        self,
        connection: Connection,
        key_id: str,
        *,
        digest: bytes,
        rotated_at: datetime,
        previous_until: datetime | None,
    ) -> None:
        """Give a key a new secret; the previous one works until `previous_until`."""
        await connection.execute(self._queries["rotate_key"], key_id, digest, rotated_at, previous_until)

    async def rehash(self, connection: Connection, key_id: str, before: bytes, after: bytes) -> None:
        """Replace the digest of one of a key's secrets by its digest under a new pepper."""
        await connection.execute(self._queries["rehash_key"], key_id, before, after)

    async def revoke(self, connection: Connection, key_id: str) -> bool:
        """Revoke a key; return False when it was revoked before."""
        return await connection.fetchval(self._queries["revoke_key"], key_id) is not None

    async def revoke_others(self, connection: Connection, user_id: int, key_id: str) -> list[str]:
        """Revoke all keys of a user but one; return their ids."""
        rows = await connection.fetch(self._queries["revoke_other_keys"], user_id, key_id)
        return [row["id"] for row in rows]


def known_scopes(names: Collection[str]) -> frozenset[Scope]:
    """Return the stored `names` that are still scopes."""
    return frozenset(Scope(name) for name in names if name in _SCOPES)
