"""The engine of batches on a real database, step by step: no broker, no loops, and workers made of paper."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any
from uuid import UUID

from batch_processor import repository
from batch_processor.batches import Batch
from batch_processor.coordinator import Coordinator, Windows
from batch_processor.execution import claims
from batch_processor.execution.claims import ChunkKey, Loaded
from batch_processor.execution.lanes import Lanes
from batch_processor.execution.settlement import Report, Settlement
from batch_processor.intake import Intake
from batch_processor.operations.echo import OPERATION as ECHO
from chassis import migrations
from chassis.broker.envelope import Delivery, new_id
from chassis.postgres import Postgres
from contracts.batches import (
    AppendItems,
    CancelBatch,
    CreateBatch,
    MoveBatch,
    PauseBatch,
    ResumeBatch,
    RetryBatch,
    SealBatch,
)
from contracts.message import Command

# Longer than any test: only what a test declares dead has ended.
_LEASE_S = 3600


class Quiet:
    """Stands for the relay and for the screens, which have nothing to do here."""

    def wake(self) -> None:
        """Do nothing."""

    def note(self, *_: object) -> None:
        """Do nothing."""


class Engine:
    """Intake, coordinator and settlement of a batch-processor, to be called one after the other."""

    def __init__(self, dsn: str, *, chunk_size: int = 3) -> None:
        quiet: Any = Quiet()
        self.postgres = Postgres(dsn, size=2)
        self.intake = Intake({"echo": replace(ECHO, chunk_size=chunk_size)}, chunk_size=chunk_size)
        self.lanes = Lanes()
        self.settlement = Settlement(self.postgres, quiet, quiet, lease_s=_LEASE_S)
        self.coordinator = Coordinator(
            self.postgres, quiet, self.intake, progress=quiet, windows=Windows(), ready=quiet.wake
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
        }

    async def open(self) -> None:
        """Connect, and make the tables."""
        await self.postgres.open()
        async with self.postgres.connection() as connection:
            await migrations.migrate(connection, "batch_processor")

    async def close(self) -> None:
        """Close the connections."""
        await self.postgres.close()

    async def execute(self, statement: str, *arguments: Any) -> None:
        """Run a statement of the test."""
        async with self.postgres.connection() as connection:
            await connection.execute(statement, *arguments)

    async def fetch(self, statement: str, *arguments: Any) -> list[Any]:
        """Return the rows of a question of the test."""
        async with self.postgres.connection() as connection:
            return list(await connection.fetch(statement, *arguments))

    async def handle(self, message: Command) -> None:
        """Take in a message as the consumer does."""
        delivery = Delivery(message, message_id=new_id(), attempt=1, tenant="", headers={})
        async with self.postgres.transaction() as connection:
            await self._handlers[type(message)](connection, [delivery])

    async def get(self, batch_id: UUID) -> Batch | None:
        """Return a batch as its row says."""
        async with self.postgres.connection() as connection:
            return await repository.get_batch(connection, batch_id)

    async def claim(self, *, most: int, for_any: int, light: Sequence[str] = ()) -> list[Loaded]:
        """Claim chunks as a worker does that knows the operations `light`."""
        async with self.postgres.connection() as connection:
            lanes = await self.lanes.look(connection, most=64)
            if not lanes:
                return []
            claimed = await claims.claim(
                connection,
                lanes,
                most=most,
                for_any=for_any,
                lease_s=_LEASE_S,
                in_flight_from=self.lanes.in_flight_from,
                light=light,
            )
            return await claims.load(connection, claimed)

    async def store(self, reports: Sequence[Report]) -> dict[ChunkKey, str]:
        """Store what a worker tells."""
        return await self.settlement.store(reports)
