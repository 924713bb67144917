"""Running the items of one chunk: side by side, each with its time limit, each outcome kept apart."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

import orjson
from pydantic import ValidationError

from batch_processor.errors import InvalidItem, ResultTooLarge
from batch_processor.operation import Context, Operation
from chassis import logging
from chassis.errors import ServiceError
from contracts.message import Command, Json

log = logging.get(__name__)

_DETAIL_LENGTH = 1000
_MOST_RESULT_BYTES = 256 * 1024


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
    """Items that reached their end, and the commands that must leave with them. Results are JSON texts."""

    positions: list[int] = field(default_factory=list)
    results: list[str] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)
    commands: list[tuple[Command, UUID]] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.positions) + len(self.failures)


Send = Callable[[Command, UUID], None]


class ChunkRun:
    """One claim of a chunk at work. `take` gives what has ended since it was last called.

    `context` makes an item's context from its position and the place where its commands are collected.
    """

    def __init__(
        self,
        operation: Operation,
        items: Sequence[Item],
        *,
        attempt: int,
        context: Callable[[int, Send], Context],
    ) -> None:
        self._operation = operation
        self._attempt = attempt
        self._context = context
        self._items = items
        self._waiting: Iterator[Item] = iter(items)
        self._ended: set[int] = set()
        self._outcomes = Outcomes()
        self.retries: list[Failure] = []

    @property
    def unfinished(self) -> list[int]:
        """Positions of the items without an end, those to be tried again included."""
        return [item.position for item in self._items if item.position not in self._ended]

    def take(self) -> Outcomes:
        """What has ended since the last call."""
        taken, self._outcomes = self._outcomes, Outcomes()
        return taken

    async def execute(self) -> None:
        """Run all items; cancelling this stops them, and what has ended stays to be taken."""
        if self._operation.run_texts is not None:
            self._execute_texts(self._operation.run_texts)
            return
        async with asyncio.TaskGroup() as lanes:
            for _ in range(min(self._operation.concurrency, len(self._items))):
                lanes.create_task(self._lane())

    def _execute_texts(self, run_texts: Callable[[Sequence[str]], Sequence[str]]) -> None:
        results = run_texts([item.payload for item in self._items])
        positions = [item.position for item in self._items]
        self._outcomes.positions.extend(positions)
        self._outcomes.results.extend(results)
        self._ended.update(positions)

    async def _lane(self) -> None:
        for item in self._waiting:
            await self._run(item)
            # An operation that never waits must not keep the loop from everything else.
            await asyncio.sleep(0)

    async def _run(self, item: Item) -> None:
        commands: list[tuple[Command, UUID]] = []
        context = self._context(item.position, lambda command, key: commands.append((command, key)))
        try:
            payload = _read(self._operation, item.payload)
            async with asyncio.timeout(self._operation.timeout_s):
                result = await self._operation.run(payload, context)
            text = _write(result)
        except ServiceError as error:
            self._failed(item, error.code, error.detail, retryable=error.retryable)
        except TimeoutError:
            detail = f"not done after {self._operation.timeout_s:g} s"
            self._failed(item, "timeout", detail, retryable=True)
        except Exception as error:
            log.warning("operation failed", operation=self._operation.name, exc_info=True)
            self._failed(item, "operation-failed", f"{type(error).__name__}: {error}", retryable=False)
        else:
            self._ended.add(item.position)
            self._outcomes.positions.append(item.position)
            self._outcomes.results.append(text)
            self._outcomes.commands.extend(commands)

    def _failed(self, item: Item, code: str, detail: str, *, retryable: bool) -> None:
        # PostgreSQL's text cannot hold a NUL.
        failure = Failure(item.position, code, detail[:_DETAIL_LENGTH].replace("\x00", "\ufffd"))
        if retryable and self._operation.retry.delay_s(self._attempt) is not None:
            self.retries.append(failure)
            return
        self._ended.add(item.position)
        self._outcomes.failures.append(failure)


def _write(result: Json) -> str:
    text = orjson.dumps(result)
    if len(text) > _MOST_RESULT_BYTES:
        raise ResultTooLarge(f"The result has {len(text)} bytes; at most {_MOST_RESULT_BYTES} are kept.")
    return text.decode()


def _read(operation: Operation, text: str) -> Any:
    if operation.payload is None:
        return orjson.loads(text)
    try:
        return operation.payload.model_validate_json(text)
    except ValidationError as error:
        # The values are left out: they may be secret or huge.
        problems = error.errors(include_url=False, include_input=False, include_context=False)
        raise InvalidItem("; ".join(_problem(p["loc"], p["msg"]) for p in problems[:10])) from error


def _problem(location: tuple[int | str, ...], message: str) -> str:
    return f"{'.'.join(map(str, location))}: {message}" if location else message
