"""Callers of batches and tasks: the rules of a state machine, each checked against a model."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar
from uuid import UUID

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from batch_processor.execution.claims import Loaded
from chassis.broker.envelope import new_id
from contracts.batches import (
    AppendItems,
    CancelBatch,
    CreateBatch,
    FollowUp,
    Item,
    MoveBatch,
    PauseBatch,
    ResumeBatch,
    RetryBatch,
    SealBatch,
)
from support.batch_engine import PERIOD_S, BatchEngine
from support.batch_model import BatchModel

T = TypeVar("T")

BEGINNING = datetime(2026, 1, 1, tzinfo=UTC)
# The rights of owners, some of which they lose.
RIGHTS = ("batches:write", "emails:send", "quotes:read")
FOLLOWING = FollowUp(operation="echo", payload="1")
PRIORITIES = {"low": 2, "normal": 5, "high": 8}
WHICH = st.integers(0, 7)
TABLES = "batches, items, results, failures, attempts, chunks, outbox, pauses, charges, lost_rights"
OPERATIONS = ("echo", "capped")
# Of a batch: its own limits, by their names in the model.
FREE: Mapping[str, int] = {}
LIMITS = ({"max_concurrency": 2}, {"rate": 3}, {"max_concurrency": 1, "rate": 2})


class BatchCallers(RuleBasedStateMachine):
    """The callers' part of a life cycle: everything that two owners may ask for, in any order."""

    engine: BatchEngine
    runner: asyncio.Runner

    def __init__(self) -> None:
        super().__init__()
        self.models: list[BatchModel] = []
        self.live: list[Loaded] = []
        self.dead: list[Loaded] = []
        self._hours = 0
        self.wait(self.engine.execute(f"TRUNCATE {TABLES}"))

    @initialize()
    def begin(self) -> None:
        """Send work of two owners, and of each some with limits."""
        self.create("ann", 7, False, "normal", None, False, "echo", FREE)
        self.create("bob", 1, True, "normal", None, False, "echo", FREE)
        self.create("ann", 5, False, "high", None, False, "capped", FREE)
        self.create("bob", 5, False, "normal", None, False, "echo", {"rate": 3})

    def wait(self, work: Coroutine[Any, Any, T]) -> T:
        return self.runner.run(work)

    def tick(self) -> datetime:
        """Return the next moment of the callers' time, an hour after the one before."""
        self._hours += 1
        return BEGINNING + timedelta(hours=self._hours)

    def describing(self, model: BatchModel) -> dict[str, Any]:
        """Return the part of a message that describes a batch, with all rights at this time."""
        if not model.is_described:
            model.rights = set(RIGHTS)
        return {
            "accepted_at": self.tick(),
            "scopes": sorted(RIGHTS),
            "on_finished": FOLLOWING,
        }

    def model_of(self, id_: UUID) -> BatchModel:
        return next(model for model in self.models if model.id == id_)

    def chosen(self, which: int) -> BatchModel:
        return self.models[which % len(self.models)]

    # Callers.

    @precondition(lambda self: len(self.models) < 8)
    @rule(
        owner=st.sampled_from(("ann", "bob")),
        size=st.integers(1, 8),
        is_task=st.booleans(),
        priority=st.sampled_from(tuple(PRIORITIES)),
        tolerated=st.sampled_from((None, None, 1)),
        is_open=st.booleans(),
        operation=st.sampled_from(OPERATIONS),
        limits=st.sampled_from((FREE, FREE, *LIMITS)),
    )
    def create(
        self, owner: str, size: int, is_task: bool, priority: str, tolerated: int | None, is_open: bool,
        operation: str, limits: Mapping[str, int],
    ) -> None:  # fmt: skip
        is_open = is_open and not is_task
        options: dict[str, Any] = {"priority": priority}
        if "max_concurrency" in limits:
            options["max_concurrency"] = limits["max_concurrency"]
        if "rate" in limits:
            options["rate_limit"] = {"items": limits["rate"], "per_s": PERIOD_S}
        if tolerated is not None and not is_task:
            options["tolerated_failure"] = {"count": tolerated}
        model = BatchModel(
            new_id(), owner, "task" if is_task else "batch", 1 if is_task else size,
            tolerated=None if is_task else tolerated, operation=operation,
            max_concurrency=limits.get("max_concurrency"), rate=limits.get("rate"),
        )  # fmt: skip
        self.models.append(model)
        model.payloads = [] if is_open else [size * n for n in range(model.size)]
        items = None if is_open else [Item(payload=payload) for payload in model.payloads]
        create = CreateBatch(
            batch_id=model.id, owner_id=owner, kind=model.kind, operation=operation,
            options=options, priority=PRIORITIES[priority], items=items, **self.describing(model),
        )  # fmt: skip
        self.wait(self.engine.handle(create))
        if not is_open:
            model.stored = model.appended = model.size
            model.is_sealed = True
        model.describe()
        model.queue_if_complete()

    @rule(
        which=WHICH,
        owner=st.sampled_from(("ann", "bob")),
        count=st.integers(1, 4),
        what=st.sampled_from(("announce", "describe", "append", "append", "seal")),
    )
    def upload(self, which: int, owner: str, count: int, what: str) -> None:
        unknown = [number for number, model in enumerate(self.models) if not model.is_described]
        if what == "announce" and len(self.models) < 8:
            self.announce(owner, count)
        elif what == "describe" and unknown:
            self.describe(unknown[which % len(unknown)])
        elif what == "append" and self.models:
            self.append(which, count)
        elif what == "seal" and self.models:
            self.seal(which)

    @precondition(lambda self: self.models)
    @rule(
        which=WHICH,
        codes=st.sampled_from(((), ("early",), ("late",))),
        hours=st.sampled_from((-1, 1)),
        what=st.sampled_from(("cancel", "pause", "resume", "resume", "retry", "retry", "retry", "move")),
    )
    def steer(self, which: int, codes: tuple[str, ...], hours: int, what: str) -> None:
        match what:
            case "retry":
                failed = [n for n, model in enumerate(self.models) if model.codes and model.phase == "over"]
                self.retry(failed[which % len(failed)] if failed else which, codes)
            case "move":
                self.move(which, hours)
            case _:
                {"cancel": self.cancel, "pause": self.pause, "resume": self.resume}[what](which)

    def announce(self, owner: str, size: int) -> None:
        """Start an upload whose describing message is not the first to arrive."""
        self.models.append(BatchModel(new_id(), owner, "batch", size))

    def describe(self, which: int) -> None:
        model = self.chosen(which)
        create = CreateBatch(
            batch_id=model.id, owner_id=model.owner, operation="echo", **self.describing(model)
        )
        self.wait(self.engine.handle(create))
        model.describe()
        model.queue_if_complete()

    def append(self, which: int, count: int) -> None:
        model = self.chosen(which)
        count = min(count, model.size - model.appended)
        if count:
            model.payloads += [count * n for n in range(count)]
            items = [Item(payload=payload) for payload in model.payloads[-count:]]
            self.wait(
                self.engine.handle(
                    AppendItems(batch_id=model.id, owner_id=model.owner, offset=model.appended, items=items)
                )
            )
            model.appended += count
            model.store(count)

    def seal(self, which: int) -> None:
        model = self.chosen(which)
        seal = SealBatch(
            batch_id=model.id, owner_id=model.owner, kind=model.kind, operation=model.operation,
            total=model.size, **self.describing(model),
        )  # fmt: skip
        self.wait(self.engine.handle(seal))
        model.describe()
        model.seal()

    def cancel(self, which: int) -> None:
        model = self.chosen(which)
        self.wait(self.engine.handle(CancelBatch(batch_id=model.id, owner_id=model.owner)))
        model.cancel()

    def pause(self, which: int) -> None:
        model = self.chosen(which)
        self.wait(self.engine.handle(PauseBatch(batch_id=model.id, owner_id=model.owner)))
        model.pause()

    def resume(self, which: int) -> None:
        model = self.chosen(which)
        self.wait(self.engine.handle(ResumeBatch(batch_id=model.id, owner_id=model.owner)))
        model.resume()

    def retry(self, which: int, codes: tuple[str, ...]) -> None:
        model = self.chosen(which)
        retry = RetryBatch(
            batch_id=model.id, owner_id=model.owner, codes=list(codes), scopes=sorted(RIGHTS),
            requested_at=self.tick(),
        )  # fmt: skip
        self.wait(self.engine.handle(retry))
        if model.retry(codes):
            model.rights = set(RIGHTS)

    def move(self, which: int, hours: int) -> None:
        model = self.chosen(which)
        then = datetime.now(UTC) + timedelta(hours=hours)
        self.wait(self.engine.handle(MoveBatch(batch_id=model.id, owner_id=model.owner, not_before=then)))
