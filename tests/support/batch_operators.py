"""Operators of batches: pauses of operations and owners, and limits; with the invariants of both."""

from __future__ import annotations

from collections import Counter
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import invariant, rule

from batch_processor.execution.claims import Loaded
from chassis.deadlines import Deadline
from contracts.pauses import PauseWork, ResumeWork
from support.batch_callers import OPERATIONS, BatchCallers
from support.batch_engine import KEY, MOST_CAPPED, MOST_KEYED
from support.batch_model import BatchModel

PAUSABLE = (("owner", "ann"), ("owner", "bob"), *(("operation", name) for name in OPERATIONS))


class BatchOperators(BatchCallers):
    """The operators' part of a life cycle.

    `paused` is what is paused, `begun` has the number of items that began in this period, by key.
    """

    def __init__(self) -> None:
        super().__init__()
        self.paused: set[tuple[str, str]] = set()
        self.begun: Counter[str] = Counter()

    @rule(what=st.sampled_from(PAUSABLE), is_pause=st.sampled_from((True, False, False)))
    def pause_or_resume_work(self, what: tuple[Any, str], is_pause: bool) -> None:
        kind, name = what
        answers = self.engine.pauses
        if is_pause:
            request = PauseWork(kind=kind, name=name, reason="", paused_by="key")
            found = self.wait(answers.pause(request, Deadline.after(60)))
            self.paused.add(what)
        else:
            found = self.wait(answers.resume(ResumeWork(kind=kind, name=name), Deadline.after(60)))
            self.paused.discard(what)
        assert {(pause.kind, pause.name) for pause in found.data} == self.paused

    def is_paused(self, model: BatchModel) -> bool:
        """Return whether an operator has stopped the batch's owner or its operation."""
        return bool({("owner", model.owner), ("operation", model.operation)} & self.paused)

    @rule(is_next_period=st.sampled_from((False, False, False, False, False, True)))
    def look_at_limits(self, is_next_period: bool) -> None:
        if is_next_period:
            self.let_the_period_pass()
        self.let_through()

    def let_through(self) -> None:
        self.wait(self.engine.admission.admit())

    def let_the_period_pass(self) -> None:
        """Let the period of every rate pass, so that earlier items no longer count."""
        self.wait(self.engine.execute("DELETE FROM charges"))
        self.begun.clear()

    def begin_items(self, loaded: Loaded, model: BatchModel) -> None:
        """Note that a worker begins the items of a claim."""
        assert not self.is_paused(model), "of what is paused nothing begins"
        for key in (str(model.id), KEY if model.operation == "capped" else ""):
            self.begun[key] += len(loaded.items)

    @invariant()
    def no_limit_is_exceeded(self) -> None:
        at_work: Counter[str] = Counter()
        for loaded in self.live:
            model = self.model_of(loaded.claim.batch_id)
            for key in (str(model.id), model.operation):
                at_work[key] += len(loaded.items)
        assert at_work["capped"] <= MOST_CAPPED
        assert self.begun[KEY] <= MOST_KEYED
        for model in self.models:
            if model.max_concurrency is not None:
                assert at_work[str(model.id)] <= model.max_concurrency, model
            if model.rate is not None:
                assert self.begun[str(model.id)] <= model.rate, model

    def assert_all_that_is_paused_is_aside(self) -> None:
        """Assert that paused chunks are not in the queues, where they would delay other work."""
        queued = "SELECT DISTINCT batch_id FROM chunks WHERE state IN ('ready', 'waiting')"
        for row in self.wait(self.engine.fetch(queued)):
            model = self.model_of(row["batch_id"])
            assert not (self.is_paused(model) and model.phase in ("queued", "running")), model
