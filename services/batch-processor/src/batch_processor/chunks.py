"""Running the items of one chunk: side by side, each with its deadline, each outcome kept apart."""

from __future__ import annotations

import asyncio
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice

from batch_processor import deadlines, item_values
from batch_processor.deadlines import ItemDeadline
from batch_processor.errors import BadResult
from batch_processor.failures import Cause, cause_of
from batch_processor.operation import Context, Operation
from chassis import logging
from chassis.broker.envelope import Outgoing
from chassis.errors import ServiceError

log = logging.get(__name__)

# For an item that was cancelled to leave its `finally` blocks; after that nobody waits for it.
_UNWIND_S = 1

Texts = Callable[[Sequence[str]], Sequence[str]]
Post = Callable[[Outgoing], None]


@dataclass(frozen=True, slots=True)
class Item:
    """An item as it is stored; `payload` is JSON text."""

    position: int
    custom_id: str | None
    payload: str


@dataclass(frozen=True, slots=True)
class Failure:
    """An item that failed, and why."""

    position: int
    code: str
    detail: str


@dataclass(slots=True)
class Outcomes:
    """Items that reached their end, and the commands that must leave with them. Results are JSON texts.

    `setbacks` are failed attempts at items that are tried again.
    """

    positions: list[int] = field(default_factory=list)
    results: list[str] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)
    commands: list[Outgoing] = field(default_factory=list)
    setbacks: list[Failure] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.positions) + len(self.failures)


class ChunkRun:
    """One claim of a chunk at work. `take` returns what has ended since it was last called.

    `context` makes an item's context from its position and the place where its commands are collected.
    Whatever an item raises, returns or cancels is that item's failure; `execute` itself does not raise.
    """

    def __init__(
        self,
        operation: Operation,
        items: Sequence[Item],
        *,
        attempt: int,
        context: Callable[[int, Post], Context],
    ) -> None:
        self.retry_delay_s = operation.retry.delay_s(attempt)
        self.retries: list[int] = []
        self._operation = operation
        self._context = context
        self._items = items
        self._waiting: Iterator[Item] = iter(items)
        self._is_closing = False
        self._ended: set[int] = set()
        self._outcomes = Outcomes()
        self._logged: set[str] = set()

    @property
    def unfinished(self) -> list[int]:
        """Return the positions of the items without an end, those to be tried again included."""
        return [item.position for item in self._items if item.position not in self._ended]

    def take(self) -> Outcomes:
        """Return what has ended since the last call."""
        taken, self._outcomes = self._outcomes, Outcomes()
        return taken

    def put_back(self, taken: Outcomes) -> None:
        """Take back what could not be stored, for the next `take`."""
        for name in ("positions", "results", "failures", "commands", "setbacks"):
            getattr(self._outcomes, name)[:0] = getattr(taken, name)

    def stop_beginning(self) -> None:
        """Begin no more items; `execute` ends with those at work."""
        self._is_closing = True

    async def execute(self) -> None:
        """Run all items; cancelling this stops them, and what has ended stays to be taken."""
        if self._operation.run_texts is not None:
            self._run_texts(self._operation.run_texts, self._items)
            return
        async with asyncio.TaskGroup() as lanes:
            for _ in range(min(self._operation.concurrency, len(self._items))):
                lanes.create_task(self._lane())

    def _run_texts(self, run_texts: Texts, items: Sequence[Item]) -> None:
        try:
            # One more than can be right shows that there are too many, however many there are.
            payloads = [item.payload for item in items]
            results = list(islice(run_texts(payloads), len(items) + 1))
            if len(results) != len(items):
                raise BadResult(f"{len(items)} items have {len(results)} or more results.")
        except BaseException as error:
            if len(items) == 1:
                self._end(items[0], self._explain(error))
                return
            # One of them may be to blame: run alone, each answers for itself.
            for item in items:
                self._run_texts(run_texts, [item])
            return
        for item, result in zip(items, results, strict=True):
            self._end(item, self._checked(item, result))

    def _checked(self, item: Item, result: object) -> str | Cause:
        if result is item.payload:
            return item.payload
        try:
            return item_values.require_json_text(result)
        except ServiceError as error:
            return cause_of(error)

    async def _lane(self) -> None:
        for item in self._waiting:
            await self._run(item)
            if self._is_closing:
                return

    async def _run(self, item: Item) -> None:
        """Run `item` in a task of its own, which it may cancel, leave hanging or make deaf to cancelling."""
        commands: list[Outgoing] = []
        deadline = ItemDeadline(self._operation.timeout_s)
        running = asyncio.create_task(self._call(item, commands, deadline))
        try:
            while not running.done() and (left_s := deadline.left_s()) > 0:
                await asyncio.wait((running,), timeout=left_s)
            if not running.done():
                detail = f"not done after {self._operation.timeout_s:g} s"
                self._end(item, Cause("timeout", detail, retryable=True))
            elif running.cancelled():
                self._end(item, Cause("operation-failed", "the operation cancelled its own task"))
            else:
                self._end(item, running.result(), commands)
        finally:
            if running.cancel():
                await asyncio.wait((running,), timeout=_UNWIND_S)

    async def _call(self, item: Item, commands: list[Outgoing], deadline: ItemDeadline) -> str | Cause:
        deadlines.CURRENT.set(deadline)
        try:
            payload = item_values.read_payload(self._operation.payload, item.payload)
            result = await self._operation.run(payload, self._context(item.position, commands.append))
            return item_values.write_result(result)
        except BaseException as error:
            # Also SystemExit, which would end the process, and a CancelledError of the item's own.
            return self._explain(error)

    def _explain(self, error: BaseException) -> Cause:
        cause = cause_of(error)
        if cause.code == "operation-failed" and type(error).__name__ not in self._logged:
            # Once a chunk, for what goes wrong for one item often does for all; and without the exception's
            # own text, which only `cause` holds in a form that can be written.
            self._logged.add(type(error).__name__)
            frames = "".join(traceback.format_tb(error.__traceback__))
            log.warning("operation failed", operation=self._operation.name, error=cause.detail, frames=frames)
        return cause

    def _end(self, item: Item, outcome: str | Cause, commands: Sequence[Outgoing] = ()) -> None:
        if isinstance(outcome, Cause):
            if outcome.retryable and self.retry_delay_s is not None:
                self.retries.append(item.position)
                self._outcomes.setbacks.append(Failure(item.position, outcome.code, outcome.detail))
                return
            self._outcomes.failures.append(Failure(item.position, outcome.code, outcome.detail))
        else:
            self._outcomes.positions.append(item.position)
            self._outcomes.results.append(outcome)
            self._outcomes.commands.extend(commands)
        self._ended.add(item.position)
