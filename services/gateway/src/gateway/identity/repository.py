"""Users and API keys in PostgreSQL."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

import asyncpg

from chassis.errors import Conflict
from chassis.postgres import Postgres
from contracts.scopes import Scope, allowed
from gateway.http.principal import Principal

User = Mapping[str, Any]
_SCOPES = frozenset(map(str, Scope))


class IdentityRepository:
    """Reads and writes users and keys; every method is one statement or one transaction."""

    def __init__(self, postgres: Postgres, queries: Mapping[str, str]) -> None:
        self._postgres = postgres
        self._queries = queries

    async def find_key(self, key_id: str) -> tuple[bytes, Principal] | None:
        """The digest and owner of a key that may be used now."""
        async with self._postgres.connection() as connection:
            row = await connection.fetchrow(self._queries["find_key"], key_id)
        if row is None:
            return None
        known = frozenset(Scope(scope) for scope in row["scopes"] if scope in _SCOPES)
        rights = allowed(known, is_administrator=row["role"] == "admin")
        principal = Principal(
            row["user_id"], row["user_name"], row["role"], key_id, rights, row["expires_at"]
        )
        return row["digest"], principal

    async def touch_keys(self, used: Mapping[str, datetime]) -> None:
        """Remember when keys were last used."""
        async with self._postgres.connection() as connection:
            await connection.execute(self._queries["touch_keys"], list(used), list(used.values()))

    async def ensure_admin(self, key_id: str, key_digest: bytes) -> bool:
        """Make the first administrator and its key known; False when the key is known with another digest."""
        async with self._postgres.transaction() as connection:
            known = await connection.fetchval(self._queries["find_digest"], key_id)
            if known is not None:
                return bool(known == key_digest)
            user_id = await connection.fetchval(self._queries["ensure_admin"])
            await connection.fetchval(
                self._queries["insert_key"], key_id, user_id, "bootstrap", key_digest, ["admin"], None
            )
            return True

    async def insert_key(
        self,
        key_id: str,
        user_id: int,
        *,
        name: str,
        digest: bytes,
        scopes: list[str],
        expires_at: datetime | None,
    ) -> datetime | None:
        """Store a key; None when there is no such user."""
        try:
            async with self._postgres.connection() as connection:
                created_at: datetime = await connection.fetchval(
                    self._queries["insert_key"], key_id, user_id, name, digest, scopes, expires_at
                )
        except asyncpg.ForeignKeyViolationError:
            return None
        return created_at

    async def list_keys(self, user_id: int) -> list[User]:
        """The keys of a user, without their secrets: those are not known here."""
        return await self._fetch("list_keys", user_id)

    async def revoke_key(self, key_id: str, user_id: int | None) -> bool:
        """Revoke a key, of any user where `user_id` is None; False when there is none."""
        return bool(await self._fetch("revoke_key", key_id, user_id))

    async def insert_user(self, name: str, email: str, role: str) -> User | None:
        """Store a user; None when the address is taken."""
        return await self._fetch_one("insert_user", name, email, role)

    async def get_user(self, user_id: int) -> User | None:
        """A user by id."""
        return await self._fetch_one("get_user", user_id)

    async def update_user(
        self, user_id: int, name: str | None, email: str | None, role: str | None
    ) -> User | None:
        """Change what is not None; None when there is no such user. Raises `Conflict` for a taken address."""
        try:
            return await self._fetch_one("update_user", user_id, name, email, role)
        except asyncpg.UniqueViolationError:
            raise Conflict(f"There is a user with the address {email} already.") from None

    async def list_users(self, after: int, limit: int) -> list[User]:
        """Users with ids above `after`, in order."""
        return await self._fetch("list_users", after, limit)

    async def _fetch(self, query: str, *arguments: object) -> list[User]:
        async with self._postgres.connection() as connection:
            return [dict(row) for row in await connection.fetch(self._queries[query], *arguments)]

    async def _fetch_one(self, query: str, *arguments: object) -> User | None:
        found = await self._fetch(query, *arguments)
        return found[0] if found else None
