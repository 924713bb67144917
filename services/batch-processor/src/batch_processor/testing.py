"""A worker for tests: items run in separate processes, as in the service, without servers."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal, TypeAlias, TypeVar
from uuid import UUID

import orjson
from pydantic import BaseModel

from batch_processor import operations
from batch_processor.execution import reports
from batch_processor.execution.claims import Claim, Loaded, RemainingItems
from batch_processor.execution.isolated_run import IsolatedRun, ServiceCalls
from batch_processor.execution.item_process import Options
from batch_processor.execution.process_pool import ProcessPool
from batch_processor.execution.processes import Processes
from batch_processor.execution.running_chunk import StoredItem
from batch_processor.operation import Operation
from chassis.broker.envelope import Outgoing
from chassis.deadlines import Deadline
from chassis.errors import Unavailable
from contracts.message import Json, Reply, Request

R = TypeVar("R", bound=BaseModel)

# Answers the requests of one type; it may raise a `ServiceError`.
Answer: TypeAlias = Callable[[Any], Reply]
_BATCH = UUID(int=1)


@dataclass(frozen=True, slots=True)
class Outcome:
    """The end of an item: its `result`, or the `code` and the `detail` of its error."""

    status: Literal["succeeded", "failed"]
    result: Json = None
    code: str = ""
    detail: str = ""
    attempts: int = 1


class Answers:
    """Stands in for the other services: a function for each type of request that operations send."""

    def __init__(self, answers: Mapping[type[Request], Answer]) -> None:
        self._answers = {request.message_type: (request, answer) for request, answer in answers.items()}

    async def call(self, request: Request, reply: type[R], deadline: Deadline) -> R:
        """Return the answer to `request`."""
        body = request.model_dump_json().encode()
        return reply.model_validate_json(
            await self.forward(request.message_type, body, deadline, service=request.service)
        )

    async def forward(self, message_type: str, body: bytes, deadline: Deadline, *, service: str) -> bytes:  # noqa: ARG002
        """Return the serialized answer to a serialized request."""
        if message_type not in self._answers:
            raise Unavailable(
                f"The worker of this test has no answer to {message_type}; add one to `answers`."
            )
        request, answer = self._answers[message_type]
        return answer(request.model_validate_json(body)).model_dump_json().encode()


class OperationWorker:
    """Runs items of installed operations; `sent` are the commands that succeeded items have sent."""

    def __init__(self, pool: ProcessPool, calls: ServiceCalls) -> None:
        self.sent: list[Outgoing] = []
        self._pool = pool
        self._calls = calls

    async def run(self, name: str, *payloads: Json) -> list[Outcome]:
        """Run `payloads` as one chunk, and return their outcomes in order; retries follow at once."""
        operation = operations.load(name)
        items = [StoredItem(n, orjson.dumps(payload).decode()) for n, payload in enumerate(payloads)]
        waiting = deque([RemainingItems.of(range(len(items)), attempt=1)])
        ended: dict[int, Outcome] = {}
        while waiting:
            rest = waiting.popleft()
            chunk = Loaded(_claim(operation, rest), [items[n] for n in rest.positions or ()])
            report = reports.of_lost(chunk)
            if report is None:
                run = IsolatedRun(
                    operation,
                    chunk.items,
                    origin=chunk.claim.origin,
                    one_by_one=rest.suspect,
                    is_first=True,
                    pool=self._pool,
                    calls=self._calls,
                )
                await run.execute()
                report = reports.of_ended(chunk.claim, run, None)
            outcomes = report.outcomes
            for position, text in zip(outcomes.positions, outcomes.results, strict=True):
                ended[position] = Outcome("succeeded", orjson.loads(text), attempts=rest.attempt)
            for failure in outcomes.failures:
                ended[failure.position] = Outcome(
                    "failed", code=failure.code, detail=failure.detail, attempts=rest.attempt
                )
            self.sent += outcomes.commands
            waiting.extend(report.rests)
        return [ended[position] for position in range(len(items))]


@asynccontextmanager
async def running_worker(
    answers: Mapping[type[Request], Answer] | None = None,
    *,
    internal_targets: str = "",
    memory_mb: int = 256,
    processes: int = 2,
) -> AsyncIterator[OperationWorker]:
    """Start a worker and stop it at the end of the block.

    `answers` stand in for the other services. `internal_targets` is the value of the setting
    `BATCH_PROCESSOR_INTERNAL_TARGETS`, for servers that the test runs on loopback.
    """
    options = Options("tests", "WARNING", "pretty", memory_mb << 20, internal_targets)
    pool, computing = ProcessPool(processes, options), Processes(1, memory_bytes=memory_mb << 20)
    watching = asyncio.create_task(pool.watch_forever())
    try:
        yield OperationWorker(pool, ServiceCalls(Answers(answers or {}), computing))
    finally:
        watching.cancel()
        with suppress(asyncio.CancelledError):
            await watching
        await pool.close()
        await computing.close()


def _claim(operation: Operation, rest: RemainingItems) -> Claim:
    now = datetime.now(UTC)
    return Claim(
        batch_id=_BATCH,
        number=0,
        run=1,
        lost=rest.lost,
        suspect=rest.suspect,
        attempt=rest.attempt,
        first_position=rest.first_position,
        last_position=rest.last_position,
        positions=None,
        due_at=now,
        owner_id="1",
        operation=operation.name,
        status="running",
        accepted_at=now,
        traceparent=None,
        request_id=None,
        is_first=True,
        claimed_at=now,
    )
