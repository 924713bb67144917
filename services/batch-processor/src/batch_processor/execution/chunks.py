"""Running the items of one chunk: concurrently, each with its own deadline and outcome."""

from __future__ import annotations

import asyncio
import traceback
from collections.abc import Callable, Sequence
from itertools import islice

from batch_processor.errors import BadResult
from batch_processor.execution import deadlines
from batch_processor.execution.deadlines import ItemDeadline
from batch_processor.execution.failures import Cause, cause_of
from batch_processor.execution.running_chunk import ItemFailure, RunningChunk, StoredItem
from batch_processor.items import item_values
from batch_processor.operation import Context, Operation
from chassis import logging
from chassis.broker.envelope import Outgoing
from chassis.errors import ServiceError

log = logging.get(__name__)

# The time that a cancelled item has for its `finally` blocks; after that nothing waits for it.
_UNWIND_S = 1
# A payload of so many characters is valid and small enough as a result, without being looked at: a character
# has at most four bytes.
_SURELY_KEPT = item_values.MOST_RESULT_BYTES // 4

Texts = Callable[[Sequence[str]], Sequence[str]]
Post = Callable[[Outgoing], None]


class Watch:
    """Receives which items begin and end; this one ignores them."""

    def begun(self, indexes: Sequence[int], deadline: ItemDeadline) -> None:
        """Note that the items at `indexes` of the chunk begin, with one deadline for all of them."""

    def ended(self, indexes: Sequence[int], *, size: int = 0, has_failed: bool = False) -> None:
        """Note that outcomes of items can be taken; `size` is that of their results."""


class ChunkRun(RunningChunk):
    """Runs the items of a chunk in this process.

    `context` makes an item's context from its position, the place where its commands are collected, and its
    payload as a JSON text.
    Whatever an item raises, returns or cancels affects only that item; `execute` itself does not raise.
    With `one_by_one`, an item begins when the one before has ended.
    """

    def __init__(
        self,
        operation: Operation,
        items: Sequence[StoredItem],
        *,
        attempt: int,
        context: Callable[[int, Post, str], Context],
        watch: Watch | None = None,
        one_by_one: bool = False,
    ) -> None:
        super().__init__(operation, items, attempt=attempt)
        self._context = context
        self._watch = watch or Watch()
        self._is_one_by_one = one_by_one
        self._waiting = iter(enumerate(items))
        self._logged: set[str] = set()

    def stop_beginning(self) -> None:
        """Begin no more items; `execute` returns once the running ones have ended."""
        self.not_begun += [item.position for _, item in self._waiting]

    async def execute(self) -> None:
        """Run all items; cancelling this stops them, but keeps the outcomes of those that have ended."""
        run_texts = self._operation.run_texts
        if run_texts is None:

            async def run_lane() -> None:
                for index, item in self._waiting:
                    await self._run(index, item)

            lanes = 1 if self._is_one_by_one else min(self._operation.lanes, len(self._items))
            async with asyncio.TaskGroup() as group:
                for _ in range(lanes):
                    group.create_task(run_lane())
        elif not self._is_one_by_one:
            self._run_texts(run_texts, list(self._waiting))
        else:
            for indexed in self._waiting:
                self._run_texts(run_texts, [indexed])
                await asyncio.sleep(0)

    def _run_texts(self, run_texts: Texts, items: Sequence[tuple[int, StoredItem]]) -> None:
        deadline = ItemDeadline(self._operation.timeout_s)
        self._watch.begun([index for index, _ in items], deadline)
        try:
            # One result too many shows that there are too many, even if there is no end of them.
            payloads = [item.payload for _, item in items]
            results = list(islice(run_texts(payloads), len(items) + 1))
            if len(results) != len(items):
                raise BadResult(f"{len(items)} items have {len(results)} or more results.")
        except BaseException as error:
            if len(items) == 1:
                self._end(*items[0], self._explain(error))
                return
            # One of them may be to blame: when each runs alone, only that one fails.
            for indexed in items:
                self._run_texts(run_texts, [indexed])
            return
        outcomes = [
            result if result is item.payload and len(result) <= _SURELY_KEPT else self._checked(result)
            for (_, item), result in zip(items, results, strict=True)
        ]
        texts = [outcome for outcome in outcomes if isinstance(outcome, str)]
        if len(texts) < len(outcomes):
            for indexed, outcome in zip(items, outcomes, strict=True):
                self._end(*indexed, outcome)
            return
        # The usual case, in one step: a call for each would cost more than the operation.
        positions = [item.position for _, item in items]
        self._outcomes.positions += positions
        self._outcomes.results += texts
        self._ended.update(positions)
        self._watch.ended([index for index, _ in items], size=sum(map(len, texts)))

    def _checked(self, result: object) -> str | Cause:
        try:
            return item_values.require_json_text(result)
        except ServiceError as error:
            return cause_of(error)

    async def _run(self, index: int, item: StoredItem) -> None:
        """Run `item` in a separate task, which it may cancel, leave hanging or make ignore cancellation."""
        commands: list[Outgoing] = []
        deadline = ItemDeadline(self._operation.timeout_s)
        self._watch.begun((index,), deadline)
        running = asyncio.create_task(self._call(item, commands, deadline))
        try:
            while not running.done() and (left_s := deadline.left_s()) > 0:
                await asyncio.wait((running,), timeout=left_s)
            if not running.done():
                detail = f"not done after {self._operation.timeout_s:g} s"
                self._end(index, item, Cause("timeout", detail, retryable=True))
            elif running.cancelled():
                cause = Cause("operation-failed", "the operation cancelled its own task")
                self._end(index, item, cause)
            else:
                self._end(index, item, running.result(), commands)
        finally:
            if running.cancel():
                await asyncio.wait((running,), timeout=_UNWIND_S)

    async def _call(self, item: StoredItem, commands: list[Outgoing], deadline: ItemDeadline) -> str | Cause:
        deadlines.CURRENT.set(deadline)
        try:
            payload = item_values.read_payload(self._operation.payload, item.payload)
            context = self._context(item.position, commands.append, item.payload)
            result = await self._operation.run(payload, context)
            return item_values.write_result(result)
        except BaseException as error:
            # This includes SystemExit, which would end the process, and the item's own CancelledError.
            return self._explain(error)

    def _explain(self, error: BaseException) -> Cause:
        cause = cause_of(error)
        if cause.code == "operation-failed" and type(error).__name__ not in self._logged:
            # Once per chunk, because an error of one item is often that of all; and without the exception's
            # own text, which is safe to write only in `cause`.
            self._logged.add(type(error).__name__)
            frames = "".join(traceback.format_tb(error.__traceback__))
            log.warning("operation failed", operation=self._operation.name, error=cause.detail, frames=frames)
        return cause

    def _end(
        self, index: int, item: StoredItem, outcome: str | Cause, commands: Sequence[Outgoing] = ()
    ) -> None:
        if isinstance(outcome, str):
            self._outcomes.positions.append(item.position)
            self._outcomes.results.append(outcome)
            self._outcomes.commands.extend(commands)
            self._ended.add(item.position)
            self._watch.ended((index,), size=len(outcome))
            return
        if outcome.retryable and self.retry_delay_s is not None:
            self.retries.append(item.position)
            self._outcomes.setbacks.append(ItemFailure(item.position, outcome.code, outcome.detail))
        else:
            self._outcomes.failures.append(ItemFailure(item.position, outcome.code, outcome.detail))
            self._ended.add(item.position)
        self._watch.ended((index,), has_failed=True)
