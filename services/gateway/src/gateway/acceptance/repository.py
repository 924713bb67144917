"""Acceptances, idempotency records and the catalogue of operations in PostgreSQL."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

import orjson

from chassis import outbox
from chassis.broker.envelope import Outgoing
from chassis.postgres import Connection, Postgres
from contracts.batches import Operation
from contracts.parked import ParkedChanged, ParkedState
from gateway.acceptance.idempotency import Answered, find_answer
from gateway.http.calls import IdempotencyKey

# Short transactions, as many as it takes: what comes in a minute must go in a minute.
_STEP = 1000
_STATUS_OF_PARKED: Mapping[ParkedState, str] = {
    "parked": "parked",
    "replayed": "queued",
    "discarded": "failed",
}


@dataclass(frozen=True, slots=True)
class Acceptance:
    """Work that was promised: whose it is, what it is and the last status heard of it.

    `reason` says why its command is parked, or was given up. `payload_hash` is there for a unique key.
    """

    id: UUID
    owner_id: str
    kind: str
    status: str
    operation: str | None
    accepted_at: datetime
    reason: str | None = None
    payload_hash: bytes | None = None


@dataclass(frozen=True, slots=True)
class Work:
    """A piece of work to be accepted: its record, its messages, and the answer that its caller gets.

    `claim` is what a request that took long has claimed its idempotency key with.
    """

    acceptance: Acceptance
    messages: Sequence[Outgoing]
    answer: bytes
    location: str
    key: IdempotencyKey | None = None
    claim: bytes | None = None


class AcceptanceRepository:
    """Every method is one transaction, or one for each step."""

    def __init__(self, postgres: Postgres, queries: Mapping[str, str]) -> None:
        self._postgres = postgres
        self._queries = queries

    async def accept(self, group: Sequence[Work]) -> set[UUID]:
        """Record each piece of work whole or not at all; return the ids of those that were new."""
        acceptances = [work.acceptance for work in group]
        messages = [(work.acceptance.id, message) for work in group for message in work.messages]
        async with self._postgres.connection() as connection:
            rows = await connection.fetch(
                self._queries["accept"],
                [acceptance.id for acceptance in acceptances],
                [acceptance.owner_id for acceptance in acceptances],
                [acceptance.kind for acceptance in acceptances],
                [acceptance.operation for acceptance in acceptances],
                [work.key.key if work.key else None for work in group],
                [work.key.body_hash if work.key else None for work in group],
                [work.answer for work in group],
                [work.location for work in group],
                [acceptance.accepted_at for acceptance in acceptances],
                [work.claim for work in group],
                [id_ for id_, _ in messages],
                *outbox.columns([message for _, message in messages]),
                [acceptance.payload_hash for acceptance in acceptances],
            )
        return {row["id"] for row in rows}

    async def add_to_outbox(self, connection: Connection, messages: Sequence[Outgoing]) -> None:
        """Promise messages that belong to no new acceptance, in the caller's transaction."""
        await outbox.add(connection, messages)

    async def find(self, id: UUID) -> Acceptance | None:  # noqa: A002 - the thing's own name
        """Return an acceptance by id."""
        async with self._postgres.connection() as connection:
            row = await connection.fetchrow(self._queries["find_acceptance"], id)
        return Acceptance(**row) if row else None

    async def find_answer(self, owner_id: str, key: str) -> Answered | None:
        """Return what was answered to a key within the last 24 hours."""
        async with self._postgres.connection() as connection:
            return await find_answer(connection, self._queries, owner_id, key)

    async def begin(self, owner_id: str, key: str, claim: bytes) -> bool:
        """Claim a key for a request that takes longer; False when it is taken."""
        async with self._postgres.connection() as connection:
            query = self._queries["begin_idempotency"]
            return await connection.fetchval(query, owner_id, key, claim) is not None

    async def renew(self, owner_id: str, key: str, claim: bytes) -> None:
        """Say that the request with this claim still runs."""
        async with self._postgres.connection() as connection:
            await connection.execute(self._queries["renew_idempotency"], owner_id, key, claim)

    async def abandon(
        self, acceptance: Acceptance, key: str | None, claim: bytes, messages: Sequence[Outgoing]
    ) -> None:
        """Give a claimed key back and promise `messages`, unless the work was accepted."""
        async with self._postgres.connection() as connection:
            await connection.execute(
                self._queries["abandon"],
                acceptance.id,
                acceptance.owner_id,
                key,
                claim,
                *outbox.columns(messages),
            )

    async def clean(self, *, keep_days: int) -> None:
        """Remove idempotency records older than 24 hours, and what ended `keep_days` days ago."""
        await self._remove("clean_idempotency")
        await self._remove("clean_acceptances", keep_days)

    async def change_statuses(
        self, connection: Connection, changes: Sequence[tuple[UUID, str, datetime]]
    ) -> None:
        """Note newer statuses, in the transaction of their events; the last of each id counts."""
        newest = {id_: (status, at) for id_, status, at in sorted(changes, key=lambda change: change[2])}
        await connection.execute(
            self._queries["change_statuses"],
            list(newest),
            [status for status, _ in newest.values()],
            [at for _, at in newest.values()],
        )

    async def note_parked(self, connection: Connection, changed: ParkedChanged) -> None:
        """Note what became of the parked commands of accepted work, in the transaction of the event."""
        status = _STATUS_OF_PARKED[changed.state]
        reason = "discarded" if changed.state == "discarded" else changed.reason
        await connection.execute(
            self._queries["note_parked"], changed.message_ids, status, reason, changed.at
        )

    async def put_operations(self, connection: Connection, operations: Sequence[Operation]) -> None:
        """Replace the catalogue of operations."""
        names = [operation.name for operation in operations]
        await connection.execute(self._queries["drop_other_operations"], names)
        await connection.execute(
            self._queries["put_operations"],
            names,
            [operation.description for operation in operations],
            [orjson.dumps(operation.item_schema).decode() for operation in operations],
            [" ".join(operation.required_scopes) for operation in operations],
        )

    async def list_operations(self) -> list[dict[str, Any]]:
        """Return the catalogue of operations, in the order of their names."""
        async with self._postgres.connection() as connection:
            rows = await connection.fetch(self._queries["list_operations"])
        return [{**row, "item_schema": orjson.loads(row["item_schema"])} for row in rows]

    async def _remove(self, query: str, *arguments: object) -> None:
        removed = _STEP
        while removed == _STEP:
            async with self._postgres.connection() as connection:
                tag = await connection.execute(self._queries[query], *arguments, _STEP)
            removed = int(tag.split()[-1])
