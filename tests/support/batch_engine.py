"""The engine of batches on a real database, step by step: without a broker, loops or real workers."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from batch_processor.batches import batch_repository
from batch_processor.batches.life_cycle import StoredBatch
from batch_processor.coordination.coordinator import Coordinator, Windows
from batch_processor.execution import claim_repository
from batch_processor.execution.claims import ChunkKey, Loaded
from batch_processor.execution.lanes import Lanes
from batch_processor.execution.running_chunk import ItemFailure, Outcomes
from batch_processor.execution.settlement import ChunkReport, Settlement
from batch_processor.intake.handlers import Intake
from batch_processor.limits.admission import ChunkAdmission
from batch_processor.limits.rules import LimitBook, LimitRule
from batch_processor.operations.echo import OPERATION as ECHO
from batch_processor.pauses.answers import PauseAnswers
from batch_processor.pauses.paused_work import PausedWork
from chassis.broker.envelope import Delivery, new_id
from chassis.postgres import Connection, Postgres
from contracts.batch_options import RateLimit
from contracts.batches import (
    AppendItems,
    CancelBatch,
    CreateBatch,
    LimitOwner,
    MoveBatch,
    PauseBatch,
    ResumeBatch,
    RetryBatch,
    SealBatch,
)
from contracts.items import Item
from contracts.message import Command
from contracts.scopes import Scope
from support.waiting import until

# Longer than any test: only what a test declares dead has ended.
_LEASE_S = 3600
# Longer than any test, too: a period is over when a test says so.
PERIOD_S = 3600
# Over all owners: of `capped` so many items at work, and of all that has the key so many begin in a period.
MOST_CAPPED, MOST_KEYED = 3, 4
KEY = "provider:test"


class Quiet:
    """Stands in for the relay and for the pushes to user interfaces, and does nothing."""

    def wake(self) -> None:
        """Do nothing."""

    def note(self, *_: object) -> None:
        """Do nothing."""


class BatchEngine:
    """The intake, coordinator and settlement of a batch-processor, called one after the other by a test."""

    def __init__(self, dsn: str, *, chunk_size: int = 3) -> None:
        quiet: Any = Quiet()
        self.postgres = Postgres(dsn, size=4)
        echo = replace(ECHO, chunk_size=chunk_size)
        capped = replace(
            echo, name="capped", run_texts=None, concurrency=2, max_concurrency=MOST_CAPPED, limit_key=KEY
        )
        guarded = replace(echo, name="guarded", required_scopes=frozenset({Scope.QUOTES_READ}))
        operations = {"echo": echo, "capped": capped, "guarded": guarded}
        limits = LimitBook(
            operations, {KEY: LimitRule(KEY, rate=RateLimit(items=MOST_KEYED, per_s=PERIOD_S))}
        )
        self.intake = Intake(operations, chunk_size=chunk_size, limits=limits)
        self.admission = ChunkAdmission(self.postgres, operations, limits, ready=quiet.wake)
        self.pauses = PauseAnswers(self.postgres, changed=lambda: self.coordinator.wake_for_pauses())
        self.lanes = Lanes()
        self.settlement = Settlement(self.postgres, quiet, quiet, lease_s=_LEASE_S)
        self.coordinator, self._rival = (
            Coordinator(
                self.postgres,
                quiet,
                Intake(operations, chunk_size=chunk_size, limits=limits),
                progress=quiet,
                windows=Windows(),
                ready=quiet.wake,
            )
            for _ in range(2)
        )
        self._handlers: Mapping[type[Command], Any] = {
            CreateBatch: self.intake.create,
            AppendItems: self.intake.append,
            SealBatch: self.intake.seal,
            CancelBatch: self.intake.cancel,
            PauseBatch: self.intake.pause,
            ResumeBatch: self.intake.resume,
            RetryBatch: self.intake.retry,
            MoveBatch: self.intake.move,
            LimitOwner: self.intake.limit,
        }

    async def open(self) -> None:
        """Connect to a database that the batch processor has migrated."""
        await self.postgres.open()

    async def close(self) -> None:
        """Close the connections."""
        await self.postgres.close()

    async def execute(self, statement: str, *arguments: Any) -> None:
        """Run a statement of the test."""
        async with self.postgres.connection() as connection:
            await connection.execute(statement, *arguments)

    async def fetch(self, statement: str, *arguments: Any) -> list[Any]:
        """Return the rows of a query of the test."""
        async with self.postgres.connection() as connection:
            return list(await connection.fetch(statement, *arguments))

    async def handle(self, message: Command, *, attempt: int = 1, body: bytes = b"") -> None:
        """Handle a message as the consumer does; `body` is what it was read from."""
        delivery = Delivery(message, new_id(), attempt, tenant="", headers={}, body=body)
        async with self.postgres.transaction() as connection:
            await self._handlers[type(message)](connection, [delivery])

    async def deliver(self, kind: type[Command]) -> None:
        """Handle the commands of a kind that are in the outbox, and those that they add."""
        taken = "DELETE FROM outbox WHERE message_type = $1 RETURNING body"
        while rows := await self.fetch(taken, kind.message_type):
            for row in rows:
                await self.handle(kind.read(row["body"]), body=row["body"])

    async def create_in(self, connection: Connection, creation: CreateBatch) -> None:
        """Create a batch in a transaction of the test."""
        delivery = Delivery(creation, message_id=new_id(), attempt=1, tenant="", headers={})
        await self.intake.create(connection, [delivery])

    async def give(self, owner_id: str, *, items: int | None = 1, **more: Any) -> UUID:
        """Create a batch of `echo` with so many items, or what `more` says; return its id."""
        usual = {"batch_id": new_id(), "operation": "echo", "accepted_at": datetime.now(UTC)}
        creation = CreateBatch(
            owner_id=owner_id,
            items=None if items is None else [Item(payload=number) for number in range(items)],
            **{**usual, **more},
        )
        await self.handle(creation)
        return creation.batch_id

    async def get(self, batch_id: UUID) -> StoredBatch | None:
        """Return the stored batch."""
        async with self.postgres.connection() as connection:
            return await batch_repository.get_batch(connection, batch_id)

    async def claim(self, *, most: int, for_any: int, light: Sequence[str] = ()) -> list[Loaded]:
        """Claim chunks as a worker does that knows the operations `light`, and all that is paused."""
        async with self.postgres.connection() as connection:
            paused = await PausedWork().refresh(connection)
            found = await self.lanes.look(connection, most=64)
            lanes = [lane for lane in found if lane.owner_id not in paused.owners]
            if not lanes:
                return []
            claimed = await claim_repository.claim(
                connection,
                lanes,
                most=most,
                for_any=for_any,
                lease_s=_LEASE_S,
                in_flight_from=self.lanes.in_flight_from,
                light=light,
                paused=paused.operations,
            )
            return await claim_repository.load(connection, claimed)

    async def work(self, *, succeeds: bool) -> None:
        """Run up to ten ready chunks as a worker does: each item ends with its payload, or fails for good."""
        for loaded in await self.claim(most=10, for_any=10):
            positions = [item.position for item in loaded.items]
            if succeeds:
                outcomes = Outcomes(positions, [item.payload for item in loaded.items])
            else:
                outcomes = Outcomes(
                    failures=[ItemFailure(position, "closed", "no") for position in positions]
                )
            await self.store([ChunkReport(loaded.claim, "done", outcomes)])

    async def coordinate(
        self, step: Callable[[Coordinator], Awaitable[None]], *, killed_after_s: float | None = None
    ) -> None:
        """Run a step in two coordinators at once; if one is killed meanwhile, the other runs it again."""
        self.coordinator.wake_for_pauses()
        self._rival.wake_for_pauses()
        killed, other = (asyncio.ensure_future(step(each)) for each in (self.coordinator, self._rival))
        if killed_after_s is not None:
            await asyncio.sleep(killed_after_s)
            killed.cancel()
        await asyncio.wait([killed, other])
        await other
        if killed.cancelled():
            # The server may be at its last statement still.
            await until(self._is_alone)
            # A little later: it looks for paused work again, some of which was locked at its first look.
            self._rival.wake_for_pauses()
            await step(self._rival)
        else:
            await killed

    async def _is_alone(self) -> bool:
        at_work = """
            SELECT FROM pg_stat_activity
            WHERE datname = current_database() AND pid <> pg_backend_pid() AND state <> 'idle'
        """
        return not await self.fetch(at_work)

    async def store(self, reports: Sequence[ChunkReport]) -> dict[ChunkKey, str]:
        """Store a worker's report."""
        return await self.settlement.store(reports)
