"""The item process, in which operations run: chunk after chunk, with only a socket to the service."""

from __future__ import annotations

import asyncio
import math
import os
import signal
import socket
import time
from asyncio import StreamWriter
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeVar
from uuid import UUID

from pydantic import BaseModel

from batch_processor import operations
from batch_processor.errors import ProcessDied
from batch_processor.execution import deadlines, forks, frames, processes
from batch_processor.execution.chunks import ChunkRun, Watch
from batch_processor.execution.contexts import ContextFactory
from batch_processor.execution.deadlines import ItemDeadline
from batch_processor.execution.failures import cause_of
from batch_processor.execution.item_loop import ItemLoop, LoopState
from batch_processor.execution.marks import Marks
from batch_processor.execution.process_state import CountedThreads, ProcessState, data_bytes, left_since
from batch_processor.execution.running_chunk import ItemFailure, Origin, Outcomes, StoredItem
from batch_processor.operation import Operation
from chassis import logging, tracing
from chassis.egress.client import GuardedClient
from chassis.egress.destinations import InternalTargets
from chassis.errors import RemoteFailure
from contracts import message
from contracts.message import Request

log = logging.get(__name__)

R = TypeVar("R", bound=BaseModel)
T = TypeVar("T")

# Seconds between two reports of a running chunk, and between two signs of life.
_REPORT_S = 0.02
_SIGN_S = 0.2
# Seconds that a process may take between two items, or to leave the last of them.
_BETWEEN_S = 5
# Seconds after the last deadline when the kernel ends the process, if the service has died and cannot.
_ALONE_S = 5
# Results of more bytes are reported immediately.
_MOST_RESULTS = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Options:
    """The log settings of the process, the bytes of memory that it may use, and its non-public targets.

    These are the targets that its items may send requests to, as `InternalTargets` parses them.
    """

    service: str
    log_level: str
    log_format: logging.Style
    memory_bytes: int
    internal_targets: str = ""


def serve(connection: socket.socket, options: Options) -> None:
    """Run chunks until the service closes the connection or dies."""
    try:
        forks.settle(options.memory_bytes)
        logging.configure(service=options.service, level=options.log_level, style=options.log_format)
        _, [descriptor, output], _, _ = socket.recv_fds(connection, 1, 2)
        marks = Marks(descriptor)
        # A pipe that is read slowly, in place of the service's own: items must not be able to fill logs.
        os.dup2(output, 1)
        os.dup2(output, 2)
        os.close(descriptor)
        os.close(output)
        forks.mute_copies(connection.fileno())
        with asyncio.Runner(loop_factory=ItemLoop) as runner:
            runner.run(_serve(connection, marks, options))
    finally:
        # Threads that an operation has left behind do not keep the process alive.
        os._exit(1)


async def _serve(connection: socket.socket, marks: Marks, options: Options) -> None:
    reader, writer = await asyncio.open_unix_connection(sock=connection)
    client = GuardedClient(InternalTargets.parse(options.internal_targets))
    chunks = _Chunks(writer, marks, client, memory_bytes=options.memory_bytes)
    while True:
        try:
            parts = await frames.read(reader)
        except ProcessDied:
            os._exit(0)
        chunks.take(parts)


class _Chunks:
    """Runs the chunks that the service sends, one at a time, and reports their outcomes."""

    def __init__(
        self, writer: StreamWriter, marks: Marks, client: GuardedClient, *, memory_bytes: int
    ) -> None:
        self._writer = writer
        self._marks = marks
        self._client = client
        self._memory_bytes = memory_bytes
        # With the operations that are loaded, without their items.
        self._data_bytes = data_bytes()
        self._threads = CountedThreads()
        loop = asyncio.get_running_loop()
        assert isinstance(loop, ItemLoop), "the process has made it"
        loop.set_default_executor(self._threads)
        self._loop = loop
        self._calls = _Calls(writer)
        self._operations: dict[str, Operation] = {}
        self._run: ChunkRun | None = None
        self._task: asyncio.Task[None] | None = None

    def take(self, parts: list[Any]) -> None:
        """Handle a frame from the service."""
        match parts:
            case ["run", *order]:
                self._task = asyncio.create_task(self._execute(*order))
            case ["stop"] if self._run is not None:
                self._run.stop_beginning()
                self._writer.write(frames.write("stopped", len(self._run.not_begun)))
            case ["cancel"] if self._task is not None:
                self._task.cancel()
            case ["begun", number]:
                self._calls.begin(number)
            case ["answer", number, is_good, text]:
                self._calls.answer(number, text, is_good=is_good)

    async def _execute(
        self,
        name: str,
        batch_id: str,
        owner_id: str,
        accepted_at: str,
        attempt: int,
        traceparent: str | None,
        request_id: str | None,
        is_one_by_one: bool,
        positions: list[int],
        payloads: list[str],
    ) -> None:
        items = list(map(StoredItem, positions, payloads))
        origin = Origin(UUID(batch_id), owner_id, datetime.fromisoformat(accepted_at), attempt)
        of_loop = self._loop.state()
        with tracing.during(traceparent, request_id):
            try:
                operation = self._load(name)
            except BaseException as error:
                cause = cause_of(error)
                failures = [ItemFailure(item.position, cause.code, cause.detail) for item in items]
                self._writer.write(frames.write_outcomes(Outcomes(failures=failures)))
                self._writer.write(frames.write("done", False))
                return
            state = ProcessState.now()
            watch = _Watch(self._marks, self._writer, is_prompt=is_one_by_one)
            factory = ContextFactory(self._calls.ask, self._calls.compute, self._client.fetch)
            run = watch.run = self._run = ChunkRun(
                operation,
                items,
                attempt=attempt,
                context=factory.of_chunk(origin),
                watch=watch,
                one_by_one=is_one_by_one,
            )
            watch.look()
            try:
                await run.execute()
            except asyncio.CancelledError:
                pass
            finally:
                watch.close()
                self._run = None
        watch.report()
        # There is nothing to cancel any more.
        self._task = None
        # The next chunk, perhaps of another owner, must not find what items of this one have left behind.
        is_clean = await self._is_as_before(state, of_loop, name)
        self._writer.write(frames.write("done", is_clean))

    async def _is_as_before(self, state: ProcessState, of_loop: LoopState, operation: str) -> bool:
        left = left_since(state, own_bytes=self._data_bytes, limit_bytes=self._memory_bytes)
        left += self._loop.left_since(of_loop)
        left += ["functions in threads"] if self._threads.at_work else []
        if not left and await self._loop.is_restless():
            left = ["calls of the event loop"]
        if left:
            log.info(
                "item process is replaced: items have left something behind", operation=operation, left=left
            )
        return not left

    def _load(self, name: str) -> Operation:
        if name not in self._operations:
            before = data_bytes()
            self._operations[name] = operations.load(name)
            self._data_bytes += data_bytes() - before
        return self._operations[name]


class _Watch(Watch):
    """Marks running items, and reports ended ones: soon, or at once with `is_prompt`."""

    run: ChunkRun

    def __init__(self, marks: Marks, writer: StreamWriter, *, is_prompt: bool) -> None:
        self._marks = marks
        self._writer = writer
        self._is_prompt = is_prompt
        self._deadlines: dict[int, ItemDeadline] = {}
        self._results = 0
        self._next_look: asyncio.TimerHandle | None = None
        self._next_report: asyncio.TimerHandle | None = None

    def begun(self, indexes: Sequence[int], deadline: ItemDeadline) -> None:
        """Mark items before they can do anything."""
        self._deadlines.update(dict.fromkeys(indexes, deadline))
        self._marks.due = min(self._marks.due, time.monotonic() + deadline.left_s())
        signal.setitimer(signal.ITIMER_REAL, max(deadline.left_s(), _BETWEEN_S) + _ALONE_S)
        self._marks.begin(indexes)

    def ended(self, indexes: Sequence[int], *, size: int = 0, has_failed: bool = False) -> None:
        """Report the outcomes soon, or at once if an item may still do harm while it ends."""
        for index in indexes:
            self._deadlines.pop(index, None)
        self._results += size
        self._marks.end(indexes)
        if self._is_prompt or has_failed or self._results > _MOST_RESULTS:
            self.report()
        elif self._next_report is None:
            self._next_report = asyncio.get_running_loop().call_later(_REPORT_S, self.report)

    def look(self) -> None:
        """Set the time by which this process must have made progress, now and until it is closed."""
        left = [deadline.left_s() for deadline in self._deadlines.values()] or [_BETWEEN_S]
        self._marks.due = time.monotonic() + max(min(left), _SIGN_S)
        signal.setitimer(signal.ITIMER_REAL, max(*left, _BETWEEN_S) + _ALONE_S)
        self._next_look = asyncio.get_running_loop().call_later(_SIGN_S, self.look)

    def report(self) -> None:
        """Report the items that have ended since the last report."""
        if self._next_report is not None:
            self._next_report.cancel()
            self._next_report = None
        outcomes, self._results = self.run.take(), 0
        if outcomes or outcomes.setbacks:
            self._writer.write(frames.write_outcomes(outcomes))

    def close(self) -> None:
        """Stop looking; from now on nothing can be late."""
        if self._next_look is not None:
            self._next_look.cancel()
        self._marks.due = math.inf
        signal.setitimer(signal.ITIMER_REAL, 0)


@dataclass(slots=True)
class _Call:
    """A request to another service, or a function to compute, that has no answer yet."""

    answer: asyncio.Future[str]
    begun: Callable[[], None] | None = None


class _Calls:
    """The calls of items to the service: requests to other services, and functions to compute."""

    def __init__(self, writer: StreamWriter) -> None:
        self._writer = writer
        self._waiting: dict[int, _Call] = {}
        self._last = 0

    async def ask(self, request: Request, reply: type[R], *, timeout_s: float) -> R:
        """Return another service's answer. Raise `RemoteFailure` with its error."""
        body = request.model_dump_json(exclude_none=True)
        text = await self._call("ask", request.service, request.message_type, body, timeout_s)
        return reply.model_validate_json(text)

    async def compute(self, function: Callable[..., T], *arguments: Any) -> T:
        """Return the result of `function` from a process for computing."""
        call = frames.write_binary(processes.write_call(function, *arguments))
        with ExitStack() as waiting:
            # The time behind the functions of others does not count for the item.
            waiting.enter_context(deadlines.stopped())
            answer = await self._call("compute", call, begun=waiting.close)
        result: T = processes.read_answer(frames.read_binary(answer))
        return result

    def begin(self, number: int) -> None:
        """Note that a function begins."""
        call = self._waiting.get(number)
        if call is not None and call.begun is not None:
            call.begun()

    def answer(self, number: int, text: str, *, is_good: bool) -> None:
        """Set the answer to a call: its result, or a `Failure`."""
        call = self._waiting.get(number)
        if call is None or call.answer.done():
            return
        if is_good:
            call.answer.set_result(text)
        else:
            call.answer.set_exception(RemoteFailure(message.Failure.model_validate_json(text)))

    async def _call(self, word: str, *parts: object, begun: Callable[[], None] | None = None) -> str:
        self._last += 1
        number = self._last
        call = _Call(asyncio.get_running_loop().create_future(), begun)
        self._waiting[number] = call
        self._writer.write(frames.write(word, number, *parts))
        try:
            return await call.answer
        except asyncio.CancelledError:
            self._writer.write(frames.write("drop", number))
            raise
        finally:
            del self._waiting[number]
