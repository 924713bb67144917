"""A table of API keys in memory."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import datetime
from typing import Any

from chassis.errors import DatabaseUnavailable
from contracts.scopes import Scope
from gateway.http.principal import Principal
from gateway.identity import keys
from gateway.identity.key_repository import UsableKey
from gateway.identity.keys import ApiKey
from support.doubles.statements import AnsweredConnection

PEPPER = "a pepper of the tests"


class KeyDatabase:
    """A database and its table of keys in memory; counts the questions, and can be away or slow."""

    def __init__(self) -> None:
        self.rows: dict[str, UsableKey] = {}
        self.questions = 0
        self.is_away = False
        self.may_answer = asyncio.Event()
        self.may_answer.set()
        self._connection = AnsweredConnection(self)

    def add(
        self,
        key: ApiKey,
        *,
        expires_at: datetime | None = None,
        previous: ApiKey | None = None,
        user_id: int = 7,
        **more: Any,
    ) -> Principal:
        scopes = frozenset({Scope("quotes:read")})
        principal = Principal(user_id, "Ann", "member", key.id, scopes, expires_at, scopes)
        before = None if previous is None else keys.digest(PEPPER, previous)
        self.rows[key.id] = UsableKey(principal, keys.digest(PEPPER, key), before, **more)
        return principal

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[AnsweredConnection]:
        self.questions += 1
        await self.may_answer.wait()
        if self.is_away:
            raise DatabaseUnavailable("away")
        yield self._connection

    transaction = connection

    async def rehash_key(self, key_id: str, before: bytes, after: bytes) -> None:
        row = self.rows[key_id]
        digest = after if row.digest == before else row.digest
        previous = after if row.previous == before else row.previous
        self.rows[key_id] = replace(row, digest=digest, previous=previous)

    async def find_usable_keys(self, key_ids: Collection[str]) -> list[dict[str, Any]]:
        found = [self.rows[key_id] for key_id in key_ids if key_id in self.rows]
        return [
            {
                "id": row.principal.key_id,
                "digest": row.digest,
                "previous_digest": row.previous,
                "previous_until": row.previous_until,
                "scopes": sorted(row.principal.granted),
                "expires_at": row.principal.expires_at,
                "user_id": row.principal.user_id,
                "user_name": row.principal.user_name,
                "role": row.principal.role,
            }
            for row in found
        ]
