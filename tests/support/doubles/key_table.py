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
from gateway.identity.keys import ApiKey
from gateway.identity.repository import UsableKey

PEPPER = "a pepper of the tests"


class Database:
    """A database and its table of keys in memory; counts the questions, and can be away or slow."""

    def __init__(self) -> None:
        self.rows: dict[str, UsableKey] = {}
        self.questions = 0
        self.is_away = False
        self.may_answer = asyncio.Event()
        self.may_answer.set()

    def add(
        self,
        key: ApiKey,
        *,
        expires_at: datetime | None = None,
        previous: ApiKey | None = None,
        user_id: int = 7,
        **more: Any,
    ) -> Principal:
        principal = Principal(user_id, "Ann", "member", key.id, frozenset({Scope("quotes:read")}), expires_at)
        before = None if previous is None else keys.digest(PEPPER, previous)
        self.rows[key.id] = UsableKey(principal, keys.digest(PEPPER, key), before, **more)
        return principal

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[None]:
        self.questions += 1
        await self.may_answer.wait()
        if self.is_away:
            raise DatabaseUnavailable("away")
        yield

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[None]:
        async with self.connection():
            yield

    async def rehash(self, _: None, key_id: str, before: bytes, after: bytes) -> None:
        row = self.rows[key_id]
        digest = after if row.digest == before else row.digest
        previous = after if row.previous == before else row.previous
        self.rows[key_id] = replace(row, digest=digest, previous=previous)

    async def find_usable(self, _: None, key_ids: Collection[str]) -> dict[str, UsableKey]:
        return {key_id: self.rows[key_id] for key_id in key_ids if key_id in self.rows}
