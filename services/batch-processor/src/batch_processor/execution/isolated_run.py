"""Running the items of a chunk in an item process, whatever they do to it."""

from __future__ import annotations

import asyncio
import functools
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Protocol, TypeVar

from pydantic import BaseModel

from batch_processor.errors import ProcessDied
from batch_processor.execution import frames
from batch_processor.execution.process_pool import ItemProcess, ProcessPool
from batch_processor.execution.processes import Processes
from batch_processor.execution.running_chunk import Death, Origin, RunningChunk, StoredItem
from batch_processor.operation import Operation
from chassis import logging, metrics, shares, tracing
from chassis.deadlines import Deadline
from chassis.errors import ServiceError, TooManyAtOnce, Unavailable
from contracts.message import Request

log = logging.get(__name__)

R = TypeVar("R", bound=BaseModel)

# How many consecutive processes may end before they have begun an item.
_MOST_STARTS = 3
# The time for the operation to be loaded.
_LOAD_S = 30
# The time for cancelled items to end, and for the process to report that.
_STOP_S = 1.5
_LONGEST_ASK_S = 600
# The most calls of a chunk that are answered at a time: more than its items need, but no flood.
MOST_CALLS = 1_000


class Rpc(Protocol):
    """Sends requests to other services: the client of the broker, or a stand-in in tests."""

    async def call(self, request: Request, reply: type[R], deadline: Deadline) -> R:
        """Return the answer to `request`, read as `reply`."""

    async def forward(self, message_type: str, body: bytes, deadline: Deadline, *, service: str) -> bytes:
        """Return the serialized answer to a serialized request."""


def count_deaths_of(operations: Iterable[str]) -> None:
    """Start the counters of dead processes at zero: the first sample of a series counts as no increase."""
    for operation in operations:
        for reason in ("deadline", "ended"):
            metrics.BATCH_PROCESS_DEATHS.labels(operation, reason)


class ServiceCalls:
    """Does for items what only the service can do: ask other services, and have functions computed."""

    def __init__(self, rpc: Rpc, processes: Processes) -> None:
        self._rpc = rpc
        self._processes = processes

    async def ask(self, request: Request, reply: type[R], *, timeout_s: float) -> R:
        """Return another service's answer, for an operation that runs in this process."""
        return await self._rpc.call(request, reply, Deadline.after(timeout_s))

    async def answer(self, parts: Sequence[Any], *, begun: Callable[[], None]) -> str:
        """Return the answer to a call as text; `begun` is called when a function begins."""
        match parts:
            case ["ask", int(), str(service), str(message_type), str(body), int() | float() as timeout_s]:
                deadline = Deadline.after(min(timeout_s, _LONGEST_ASK_S))
                answer = await self._rpc.forward(message_type, body.encode(), deadline, service=service)
                return answer.decode()
            case ["compute", int(), str(call)]:
                return frames.write_binary(
                    await self._processes.answer(frames.read_binary(call), begun=begun)
                )
        raise ProcessDied("The process sent a call that cannot be read.")


class IsolatedRun(RunningChunk):
    """Runs the items of a chunk in a process of `pool`, which no other chunk uses meanwhile.

    When the process dies, or is killed because an item does not end, `death` names the running items. With
    `one_by_one`, that is the one to blame.
    """

    def __init__(
        self,
        operation: Operation,
        items: Sequence[StoredItem],
        *,
        origin: Origin,
        one_by_one: bool,
        is_first: bool,
        pool: ProcessPool,
        calls: ServiceCalls,
    ) -> None:
        super().__init__(operation, items, attempt=origin.attempt)
        self.not_begun = [item.position for item in items]
        self._origin = origin
        self._is_one_by_one = one_by_one
        self._is_first = is_first
        self._pool = pool
        self._calls = calls
        self._process: ItemProcess | None = None
        self._is_closing = False
        self._is_cancelled = False
        self._left = {item.position for item in items}
        self._answering: dict[int, asyncio.Task[None]] = {}

    def let_go(self, positions: Iterable[int]) -> None:
        """Forget items that have not begun: the process may no longer report them."""
        super().let_go(positions)
        self._left -= self._let_go

    def stop_beginning(self) -> None:
        """Begin no more items; `execute` returns once the running ones have ended."""
        if not self._is_closing and self._process is not None:
            self._process.send(frames.write("stop"))
        self._is_closing = True

    async def execute(self) -> None:
        """Run all items; cancelling this stops them, but keeps the outcomes of those that have ended.

        Raise `ProcessDied` when several consecutive processes ended before they had begun an item.
        """
        trace, died = tracing.current(), None
        order = frames.write(
            "run",
            self._operation.name,
            str(self._origin.batch_id),
            self._origin.owner_id,
            self._origin.accepted_at.isoformat(),
            self._origin.attempt,
            trace.handed_on if trace else None,
            trace.request_id if trace else None,
            self._is_one_by_one,
            [item.position for item in self._items],
            [item.payload for item in self._items],
        )
        for _ in range(_MOST_STARTS):
            died = await self._execute_in(await self._pool.take(is_first=self._is_first), order)
            if died is None or self.death is not None or len(self._left) < len(self._items):
                return
        if died is not None:
            raise died

    async def _execute_in(self, process: ItemProcess, order: bytes) -> ProcessDied | None:
        """Run the items in `process`; return its error if it died."""
        self._process, self.not_begun = process, []
        process.marks.clear(len(self._items))
        process.marks.due = time.monotonic() + _LOAD_S
        process.send(order)
        if self._is_closing:
            process.send(frames.write("stop"))
        listening = asyncio.create_task(self._listen(process))
        died: ProcessDied | None = None
        try:
            await asyncio.wait((listening,))
        finally:
            # Shielded: a process must be returned or killed, even when this is cancelled again.
            died = await asyncio.shield(asyncio.create_task(self._leave(process, listening)))
        return died

    async def _leave(self, process: ItemProcess, listening: asyncio.Task[bool]) -> ProcessDied | None:
        if not listening.done():
            self._is_cancelled = True
            process.send(frames.write("cancel"))
            await asyncio.wait((listening,), timeout=_STOP_S)
        self._process = None
        for answering in self._answering.values():
            answering.cancel()
        error = listening.exception() if listening.done() else None
        at_work = [self._items[index].position for index in process.marks.at_work(len(self._items))]
        if self._is_cancelled:
            self.not_begun = sorted(self._left.difference(at_work))
        if error is None and listening.done() and listening.result():
            self._pool.give_back(process)
            return None
        listening.cancel()
        suspects = [position for position in at_work if position in self._left]
        is_late = process.is_late
        how = await self._pool.discard(process)
        if error is None:
            return None
        if not isinstance(error, ProcessDied):
            raise error
        metrics.BATCH_PROCESS_DEATHS.labels(self._operation.name, "deadline" if is_late else "ended").inc()
        log.warning(
            "item process died while it ran items",
            operation=self._operation.name,
            batch_id=str(self._origin.batch_id),
            how=how,
            reason=error.detail,
            at_work=len(suspects),
        )
        if suspects:
            self.death = Death(f"The process {how}.", suspects, is_late)
        return ProcessDied(f"The process {how}.")

    async def _listen(self, process: ItemProcess) -> bool:
        """Collect outcomes from the process until the chunk is done; return whether it can run another."""
        while True:
            match parts := await process.receive():
                case ["outcomes", *_]:
                    outcomes = frames.read_outcomes(parts, self._left)
                    ended = [*outcomes.positions, *(failure.position for failure in outcomes.failures)]
                    again = [setback.position for setback in outcomes.setbacks]
                    self._ended.update(ended)
                    self._left.difference_update(ended, again)
                    self.retries += again
                    self._outcomes.extend(outcomes)
                case ["ask" | "compute", int() as number, *_] if len(self._answering) >= MOST_CALLS:
                    refused = TooManyAtOnce(f"{MOST_CALLS} calls of these items wait already; send fewer.")
                    process.send(_refusal(number, refused))
                case ["ask" | "compute", int() as number, *_]:
                    answering = asyncio.create_task(self._answer(process, number, parts))
                    self._answering[number] = answering
                    answering.add_done_callback(functools.partial(self._answered, number))
                case ["drop", int() as number] if number in self._answering:
                    self._answering[number].cancel()
                case ["drop", int()]:
                    pass
                case ["stopped", int() as count]:
                    # Items begin in their order, so these are the last ones.
                    tail = self._items[max(0, len(self._items) - max(0, count)) :]
                    self.not_begun = [item.position for item in tail if item.position in self._left]
                case ["done", bool() as is_clean]:
                    if self._left and not self._is_closing and not self._is_cancelled:
                        raise ProcessDied("The process ended the chunk before all of its items.")
                    return is_clean
                case _:
                    raise ProcessDied("The process sent a frame of an unknown kind.")

    async def _answer(self, process: ItemProcess, number: int, parts: Sequence[Any]) -> None:
        # Not in the share of the owner's own requests, so that its batches do not keep it waiting.
        shares.current.set(f"{self._origin.owner_id}/{self._operation.name}")
        try:
            text = await self._calls.answer(parts, begun=lambda: process.send(frames.write("begun", number)))
        except ServiceError as error:
            process.send(_refusal(number, error))
        except Exception as error:
            # Without an answer the item would wait for ever: until a function begins, no deadline holds.
            log.error("call of an item failed", operation=self._operation.name, exc_info=error)
            reason = f"The call failed ({type(error).__name__}); try again later."
            process.send(_refusal(number, Unavailable(reason)))
        else:
            process.send(frames.write("answer", number, True, text))

    def _answered(self, number: int, _: asyncio.Task[None]) -> None:
        self._answering.pop(number, None)


def _refusal(number: int, error: ServiceError) -> bytes:
    """Return the frame that ends a call with `error`."""
    return frames.write("answer", number, False, error.failure().model_dump_json())
