"""A real batch-processor on real servers, and a caller that sends it work."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, cast
from uuid import UUID

import aiormq
import asyncpg

from batch_processor.operation import Context, Operation, RetryPolicy
from batch_processor.operations.database_backup import OPERATION as DATABASE_BACKUP
from batch_processor.operations.echo import OPERATION as ECHO
from batch_processor.operations.email_send import OPERATION as EMAIL_SEND
from batch_processor.resources import Resources
from batch_processor.settings import BatchProcessorSettings
from chassis.broker.envelope import command, new_id
from chassis.broker.messaging import Messaging
from chassis.deadlines import Deadline
from chassis.errors import Conflict, Unavailable
from contracts import batches
from contracts.message import Command
from contracts.scopes import Scope
from contracts.topology import GATEWAY
from support.bundled import messages_in
from support.waiting import until

# Counts the items of all batches.
ALL = UUID(int=0)


@dataclass
class Stage:
    """The operations of the tests without those in `removed`, and a record of their items."""

    runs: Counter[tuple[UUID, int]] = field(default_factory=Counter)
    begun: asyncio.Event = field(default_factory=asyncio.Event)
    go: asyncio.Event = field(default_factory=asyncio.Event)
    free: int = 0
    held: set[int] = field(default_factory=set)
    removed: set[str] = field(default_factory=set)
    at_work: Counter[UUID] = field(default_factory=Counter)
    most_at_work: Counter[UUID] = field(default_factory=Counter)

    @property
    def operations(self) -> Mapping[str, Operation]:
        """The operations by name.

        `gated` waits for `go` from item `free` on, `held` at the positions in `held`, `flaky`
        fails as often as its payload says, `poisonous` does its worst for four items, `grumpy` refuses every
        third item, `guarded` needs a scope, `careless` is `held` and sends a command that cannot be stored,
        `measured` takes a while and counts the items at work of each batch, `capped` is the same with three
        at work over all batches, `keyed` with a key, `slow` with items of three seconds, two at a time.
        """
        retry = RetryPolicy(max_attempts=3, first_s=0.05, factor=1)
        known = {
            "echo": ECHO,
            "email.send": EMAIL_SEND,
            "database.backup": DATABASE_BACKUP,
            "counted": self._operation("counted", self._count),
            "guarded": self._operation(
                "guarded", self._count, required_scopes=frozenset({Scope.QUOTES_READ})
            ),
            "gated": self._operation("gated", self._wait, concurrency=2, chunk_size=10),
            "held": self._operation("held", self._hold, concurrency=40, chunk_size=10),
            "careless": self._operation("careless", self._send_badly, concurrency=40, chunk_size=10),
            "flaky": self._operation("flaky", self._fail_at_first, retry=retry, chunk_size=10),
            "poisonous": self._operation("poisonous", self._poison),
            "measured": self._operation("measured", self._measure),
            "capped": self._operation("capped", self._measure, max_concurrency=3),
            "keyed": self._operation("keyed", self._measure, limit_key="provider:test"),
            "slow": self._operation("slow", self._take_long, concurrency=2, chunk_size=10),
            "grumpy": self._operation("grumpy", self._refuse_thirds, chunk_size=10),
        }
        return {name: operation for name, operation in known.items() if name not in self.removed}

    def _operation(self, name: str, run: Any, **changes: Any) -> Operation:
        return Operation(name=name, description="for tests", payload=None, run=run, **changes)

    async def _count(self, payload: Any, context: Context) -> Any:
        self.runs[context.batch_id, context.position] += 1
        return payload

    async def _wait(self, payload: Any, context: Context) -> Any:
        self.runs[context.batch_id, context.position] += 1
        if context.position >= self.free:
            self.begun.set()
            await self.go.wait()
        return payload

    async def _hold(self, payload: Any, context: Context) -> Any:
        if context.position in self.held:
            await self.go.wait()
        return payload

    async def _send_badly(self, payload: Any, context: Context) -> Any:
        if payload == "bad":
            context.send(
                batches.CancelBatch(batch_id=context.batch_id, owner_id=context.owner_id),
                cast(UUID, "not an id"),
            )
        return await self._hold(payload, context)

    async def _fail_at_first(self, failures: int, context: Context) -> int:
        self.runs[context.batch_id, context.position] += 1
        if context.attempt <= failures:
            raise Unavailable(f"attempt {context.attempt}")
        return context.attempt

    async def _take_long(self, payload: Any, context: Context) -> Any:
        return await self._measure(payload, context, takes_s=3)

    async def _measure(self, payload: Any, context: Context, takes_s: float = 0.02) -> Any:
        for id_ in (context.batch_id, ALL):
            self.at_work[id_] += 1
            self.most_at_work[id_] = max(self.most_at_work[id_], self.at_work[id_])
        await asyncio.sleep(takes_s)
        for id_ in (context.batch_id, ALL):
            self.at_work[id_] -= 1
        self.runs[context.batch_id, context.position] += 1
        return payload

    async def _poison(self, payload: int, _: Context) -> Any:
        poisons = (ValueError("bad \ud800 name"), asyncio.CancelledError(), SystemExit(1))
        if payload < len(poisons):
            raise poisons[payload]
        return {1, 2} if payload == len(poisons) else payload

    async def _refuse_thirds(self, payload: int, _: Context) -> int:
        if payload % 3 == 0:
            raise Conflict("divisible by three")
        return payload


class Caller:
    """Plays the gateway: publishes commands, sends requests, and reads the results."""

    def __init__(self, messaging: Messaging, database: asyncpg.Pool[asyncpg.Record], broker_url: str) -> None:
        self._messaging = messaging
        self.broker_url = broker_url
        self.database = database
        self.owner = "ann"

    async def send(self, message: Command, *, message_id: UUID | None = None) -> None:
        await self._messaging.publisher.publish(command(message, message_id=message_id))

    async def ask(self, request: Any, reply: Any) -> Any:
        return await self._messaging.rpc.call(request, reply, Deadline.after(5))

    async def ask_for_bytes(self, request: Any) -> bytes:
        """Return the answer as the bytes that were sent."""
        return await self._messaging.rpc.ask(request, Deadline.after(5))

    def creation(self, operation: str, payloads: Sequence[Any] | None, **changes: Any) -> batches.CreateBatch:
        items = None if payloads is None else [batches.Item(payload=payload) for payload in payloads]
        fields = {"batch_id": new_id(), "owner_id": self.owner, "accepted_at": datetime.now(UTC), **changes}
        return batches.CreateBatch(operation=operation, items=items, **fields)

    def append(self, batch_id: UUID, offset: int, payloads: Sequence[Any]) -> batches.AppendItems:
        """Return some items with the places of their payloads, as the gateway sends them."""
        items = [batches.Item(custom_id=f"item-{offset + i}", payload=p) for i, p in enumerate(payloads)]
        places, start = [], 0
        for text in (item.model_dump_json().encode() for item in items):
            places += [start + text.index(b'"payload":') + len(b'"payload":'), start + len(text) - 1]
            start += len(text) + 1
        return batches.AppendItems(
            batch_id=batch_id, owner_id=self.owner, offset=offset, items=items, payloads_at=places
        )

    def seal(self, batch_id: UUID, total: int, *, operation: str = "echo") -> batches.SealBatch:
        now = datetime.now(UTC)
        return batches.SealBatch(
            batch_id=batch_id, owner_id=self.owner, operation=operation, accepted_at=now, total=total
        )

    async def submit(self, operation: str, payloads: Sequence[Any], **changes: Any) -> UUID:
        """Create a batch with its items."""
        creation = self.creation(operation, payloads, **changes)
        await self.send(creation)
        return creation.batch_id

    async def submit_from(self, operation: str, source: batches.Source) -> UUID:
        """Create a batch from the items of another one."""
        creation = self.creation(operation, None, source=source)
        await self.send(creation)
        return creation.batch_id

    async def get(self, batch_id: UUID, *, kind: batches.Kind = "batch") -> batches.Batch:
        request = batches.GetBatch(batch_id=batch_id, owner_id=self.owner, kind=kind)
        found: batches.Batch = await self.ask(request, batches.Batch)
        return found

    async def reach(self, batch_id: UUID, *statuses: str, timeout_s: float = 20) -> batches.Batch:
        """Return the batch, once it has one of `statuses` (without any: once it is finished)."""
        wanted = set(statuses) or batches.FINISHED

        async def reached() -> bool:
            row = "SELECT status, operation FROM batches WHERE id = $1"
            found = await self.database.fetchrow(row, batch_id)
            return found is not None and found["operation"] is not None and found["status"] in wanted

        await until(reached, timeout_s=timeout_s, what=lambda: f"batch {batch_id} in {wanted}")
        kind = await self.database.fetchval("SELECT kind FROM batches WHERE id = $1", batch_id)
        return await self.get(batch_id, kind=kind)

    async def results(self, batch_id: UUID, **changes: Any) -> list[batches.Result]:
        """Return all results of the batch, page by page."""
        found: list[batches.Result] = []
        cursor: str | None = None
        while True:
            request = batches.ListResults(batch_id=batch_id, owner_id=self.owner, cursor=cursor, **changes)
            page: batches.Results = await self.ask(request, batches.Results)
            found += page.data
            cursor = page.next_cursor
            if cursor is None:
                return found

    async def finished_events(self, *, outbox_empty: bool = True) -> list[batches.BatchFinished]:
        """Return the `BatchFinished` events that reached the gateway's queue so far, taken from it."""
        if outbox_empty:
            await until(self.outbox_is_empty)
        found: list[batches.BatchFinished] = []
        connection = await aiormq.connect(self.broker_url)
        try:
            channel = await connection.channel()
            while messages := messages_in(await channel.basic_get(f"{GATEWAY}.events", no_ack=True)):
                found += [
                    batches.BatchFinished.model_validate_json(message.body)
                    for message in messages
                    if message.message_type == batches.BatchFinished.message_type
                ]
        finally:
            await connection.close()
        return found

    async def outbox_is_empty(self) -> bool:
        return not await self.database.fetchval("SELECT count(*) FROM outbox")


class BatchProcessors:
    """Starts batch-processors in this process and closes them at the end."""

    def __init__(self, broker_url: str, dsn: str, stage: Stage, stack: AsyncExitStack) -> None:
        self._needed = {"rabbitmq_url": broker_url, "postgres_dsn": dsn, "shutdown_grace_s": 5}
        self._stage = stage
        self._stack = stack

    async def start(self, **changes: Any) -> Resources:
        """Return a service that is ready, until the end of the test."""
        return await self._stack.enter_async_context(self.running(**changes))

    @asynccontextmanager
    async def running(self, *, isolated: bool = False, **changes: Any) -> AsyncIterator[Resources]:
        """Yield a service that is ready, until the end of the block; `isolated` as in `Resources`."""
        settings = BatchProcessorSettings.model_validate({**self._needed, **changes})
        resources = Resources(settings, self._stage.operations, isolated=isolated)
        health = resources.runtime.health
        async with resources.open():
            await until(lambda: not health.reasons(), what=lambda: str(health.reasons()))
            yield resources
