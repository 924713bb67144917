"""The whole life cycle on a real database, in any order, against a model: a state machine with two owners."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import replace
from typing import Any
from uuid import UUID

import orjson
import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from batch_processor.batches.life_cycle import FINISHED
from batch_processor.coordination import coordinator, owner_turns
from batch_processor.coordination.coordinator import Coordinator
from batch_processor.execution import reports
from batch_processor.execution.claims import Loaded, RemainingItems
from batch_processor.execution.running_chunk import ItemFailure, Outcomes
from batch_processor.execution.settlement import ChunkReport
from contracts.batches import BatchFinished
from support.batch_callers import WHICH
from support.batch_engine import BatchEngine
from support.batch_model import BatchModel, Ended
from support.batch_operators import PAUSABLE
from support.batch_rights import BatchRights
from support.waiting_messages import waiting_messages

# Of a claim, what becomes of its items in turn.
FATE = st.sampled_from(("succeed", "succeed", "fail", "fail late", "again"))
# The seconds after which the first of two coordinators is killed in the middle of a step; None for never.
KILLED = st.sampled_from((None, 0.0, 0.001, 0.002, 0.004))
FATES = st.lists(FATE, min_size=4, max_size=4)


class LifeCycle(BatchRights):
    """Callers, operators, workers and two coordinators in any order; some die, and workers speak later."""

    # Time, and the coordinator.

    @precondition(lambda self: len(self.models) > 2)
    @rule(which=WHICH, is_deadline=st.booleans(), killed_after_s=KILLED)
    def pass_time(self, which: int, is_deadline: bool, killed_after_s: float | None) -> None:
        (self.reach_the_deadline if is_deadline else self.leave_alone_for_days)(which, killed_after_s)

    def by_two(self, step: Callable[[Coordinator], Awaitable[None]], killed_after_s: float | None) -> None:
        """Run a step of the coordinator in two of them at once, of which one may be killed meanwhile."""
        self.wait(self.engine.coordinate(step, killed_after_s=killed_after_s))

    def reach_the_deadline(self, which: int, killed_after_s: float | None) -> None:
        model = self.chosen(which)
        if model.is_described and model.phase not in ("over", "cancelling"):
            past = "UPDATE batches SET expires_at = now() - interval '1 s' WHERE id = $1"
            self.wait(self.engine.execute(past, model.id))
            self.by_two(Coordinator.expire, killed_after_s)
            model.lapse()

    def leave_alone_for_days(self, which: int, killed_after_s: float | None) -> None:
        model = self.chosen(which)
        past = """
            UPDATE batches SET created_at = now() - interval '2 days', appended_at = now() - interval '2 days'
            WHERE id = $1 RETURNING id
        """
        if self.wait(self.engine.fetch(past, model.id)):
            self.by_two(Coordinator.expire, killed_after_s)
            model.expire_upload()

    @rule(killed_after_s=KILLED)
    def coordinate(self, killed_after_s: float | None) -> None:
        due = "UPDATE chunks SET due_at = now() WHERE state = 'delayed' AND attempt > 1"
        self.wait(self.engine.execute(due))
        for step in (Coordinator.promote, Coordinator.redrive, Coordinator.steer, Coordinator.cancel):
            self.by_two(step, killed_after_s)
        for model in self.models:
            model.redrive()
            if model.phase == "cancelling":
                at_work = {n for loaded in self.live for n in self.items_of(loaded, model)}
                model.record(dict.fromkeys(model.pending - at_work, "cancelled"), {}, changes=True)
        self.assert_all_that_is_paused_is_aside()

    def items_of(self, loaded: Loaded, model: BatchModel) -> set[int]:
        """Return the items that the claim has, also those that have ended meanwhile."""
        is_of_it = loaded.claim.batch_id == model.id
        return {item.position for item in loaded.items} if is_of_it else set()

    # Workers.

    @rule(most=st.integers(1, 4), reserved=st.integers(0, 1))
    def claim(self, most: int, reserved: int) -> None:
        for_any = max(0, most - reserved)
        expected = self.wait(self.fair_choice(most, for_any))
        claimed = self.wait(self.engine.claim(most=most, for_any=for_any))
        assert {loaded.claim.key for loaded in claimed} == expected
        for loaded in claimed:
            model, positions = self.model_of(loaded.claim.batch_id), [i.position for i in loaded.items]
            assert positions == sorted(set(positions))
            assert set(positions) <= model.pending, "what has ended never runs again"
            for other in self.live:
                assert not set(positions) & self.items_of(other, model), "an item is at work once"
            if (report := reports.of_lost(loaded)) is not None:
                self.store(report, is_ours=True)
            else:
                self.begin_items(loaded, model)
                self.live.append(loaded)

    async def fair_choice(self, most: int, for_any: int) -> set[tuple[UUID, int]]:
        """Return the chunks that the rule of the shares picks: by turn, in each owner by priority and age."""
        found = await self.engine.fetch(
            """
            SELECT c.owner_id, c.batch_id, c.number, c.state, c.priority, c.run, c.stamp, c.due_at, b.status,
                b.operation
            FROM chunks AS c JOIN batches AS b ON b.id = c.batch_id
            """
        )
        places: list[tuple[int, Any]] = []
        lanes: set[tuple[str, int, bool]] = set()
        for owner in (owner for owner in ("ann", "bob") if ("owner", owner) not in self.paused):
            own = [row for row in found if row["owner_id"] == owner]
            at_work = sum(row["state"] == "running" for row in own)
            ready = [row for row in own if row["state"] == "ready"]
            # What was at work before goes on before anything else of its priority begins.
            ready.sort(
                key=lambda r: (-r["priority"], r["run"] == 0, r["stamp"], r["batch_id"].int, r["number"])
            )
            first: list[Any] = []
            for lane in dict.fromkeys((row["priority"], row["run"] == 0) for row in ready):
                first += [row for row in ready if (row["priority"], row["run"] == 0) == lane][:most]
                lanes.add((owner, *lane))
            places += [(at_work + nth, row) for nth, row in enumerate(first, start=1)]
        places.sort(
            key=lambda place: (place[0], place[1]["due_at"], place[1]["batch_id"].int, place[1]["number"])
        )
        # What cannot begin leaves its place to the next one.
        able = [
            (turn, row)
            for turn, row in places[: most + len(lanes)]
            if row["status"] in ("queued", "running") and ("operation", row["operation"]) not in self.paused
        ]
        picked = [row for n, (turn, row) in enumerate(able) if n < for_any or (turn == 1 and n < most)]
        return {(row["batch_id"], row["number"]) for row in picked}

    @rule(most=st.integers(2, 4), fates=FATES, stops=st.integers(0, 2))
    def work(self, most: int, fates: list[str], stops: int) -> None:
        """Claim what the limits let through, stop some of it and end the rest but the first at work."""
        self.let_through()
        self.claim(most, 1)
        for _ in range(min(stops, len(self.live) - 1)):
            self.report_some(len(self.live) - 1, fates, 1, False)
        while len(self.live) > 1:
            self.finish(1, fates)

    @precondition(lambda self: self.live)
    @rule(which=WHICH, fates=FATES)
    def finish(self, which: int, fates: list[str]) -> None:
        loaded = self.live.pop(which % len(self.live))
        self.store(self.report_of(loaded, fates), is_ours=True)

    @precondition(lambda self: self.live)
    @rule(which=WHICH, fates=FATES, count=st.integers(0, 3), goes_on=st.booleans())
    def report_some(self, which: int, fates: list[str], count: int, goes_on: bool) -> None:
        """Report the first items, and continue, or return the rest."""
        place = which % len(self.live)
        loaded = self.live[place]
        # With its last item a worker tells that the chunk is done.
        count = min(count, len(loaded.items) - 1)
        reported = replace(loaded, items=loaded.items[: max(0, count)])
        outcomes = self.report_of(reported, ["fail" if fate == "again" else fate for fate in fates]).outcomes
        begins = loaded.claim.status == "queued"
        if goes_on:
            self.live[place] = replace(loaded, items=loaded.items[len(reported.items) :])
            self.store(ChunkReport(loaded.claim, "running", outcomes, begins=begins), is_ours=True)
        else:
            del self.live[place]
            self.store(ChunkReport(loaded.claim, "ready", outcomes), is_ours=True)

    @precondition(lambda self: self.live)
    @rule(which=WHICH, kept=st.integers(1, 2))
    def share_after_a_turn(self, which: int, kept: int) -> None:
        """Keep the first items at work, and let the others go on by themselves, one by one."""
        place = which % len(self.live)
        loaded = self.live[place]
        claim, positions = loaded.claim, [item.position for item in loaded.items]
        if claim.gate is not None or claim.suspect or len(positions) <= kept:
            return
        rests = [RemainingItems.of([position], claim.attempt, run=claim.run) for position in positions[kept:]]
        self.live[place] = replace(loaded, items=loaded.items[:kept])
        report = ChunkReport(
            claim, "running", rests=rests, keeps=positions[:kept], begins=claim.status == "queued"
        )
        self.store(report, is_ours=True)

    @precondition(lambda self: self.live)
    @rule(which=WHICH)
    def stop_what_is_cancelled(self, which: int) -> None:
        loaded = self.live[which % len(self.live)]
        if self.model_of(loaded.claim.batch_id).phase == "cancelling":
            self.live.remove(loaded)
            positions = [item.position for item in loaded.items]
            self.store(ChunkReport(loaded.claim, "done", cancelled=dict.fromkeys(positions, 1)), is_ours=True)

    @precondition(lambda self: self.live)
    @rule(
        which=WHICH,
        fates=FATES,
        then=st.sampled_from(("rest", "be overtaken", "speak too late")),
        killed_after_s=KILLED,
    )
    def die(self, which: int, fates: list[str], then: str, killed_after_s: float | None) -> None:
        loaded = self.live.pop(which % len(self.live))
        self.dead.append(loaded)
        past = "UPDATE chunks SET leased_until = now() - interval '1 s' WHERE (batch_id, number) = ($1, $2)"
        self.wait(self.engine.execute(past, *loaded.claim.key))
        self.by_two(Coordinator.sweep, killed_after_s)
        if then != "rest":
            self.claim(4, 0)
        if then == "speak too late":
            self.speak_after_death(len(self.dead) - 1, fates)

    @precondition(lambda self: self.dead)
    @rule(which=WHICH, fates=FATES)
    def speak_after_death(self, which: int, fates: list[str]) -> None:
        """Report from a worker that was taken for dead: it counts if nobody has its chunk since."""
        loaded = self.dead.pop(which % len(self.dead))
        batch_id, number = loaded.claim.key
        found = self.wait(
            self.engine.fetch("SELECT run FROM chunks WHERE batch_id = $1 AND number = $2", batch_id, number)
        )
        is_ours = [row["run"] for row in found] == [loaded.claim.run]
        self.store(self.report_of(loaded, fates), is_ours=is_ours)

    def report_of(self, loaded: Loaded, fates: list[str]) -> ChunkReport:
        """Return the report of a claim whose items have these fates, in turn."""
        outcomes, again = Outcomes(), []
        for number, item in enumerate(loaded.items):
            match fates[number % len(fates)]:
                case "succeed":
                    outcomes.positions.append(item.position)
                    outcomes.results.append(item.payload)
                case "again":
                    again.append(item.position)
                    outcomes.setbacks.append(ItemFailure(item.position, "early", "not yet"))
                case fate:
                    code = "late" if fate == "fail late" else "early"
                    outcomes.failures.append(ItemFailure(item.position, code, "no"))
        # Not a delay that ends by itself: what begins next must not depend on how fast this runs.
        rests = [RemainingItems.of(again, loaded.claim.attempt + 1, delay_s=3600)] if again else []
        return ChunkReport(loaded.claim, "done", outcomes, rests=rests)

    def store(self, report: ChunkReport, *, is_ours: bool) -> None:
        kept = self.wait(self.engine.store([report]))
        assert (report.claim.key in kept) == is_ours
        if is_ours:
            ended: dict[int, Ended] = dict.fromkeys(report.outcomes.positions, "succeeded")
            ended |= dict.fromkeys((failure.position for failure in report.outcomes.failures), "failed")
            ended |= dict.fromkeys(report.cancelled, "cancelled")
            codes = {failure.position: failure.code for failure in report.outcomes.failures}
            self.model_of(report.claim.batch_id).record(ended, codes, changes=bool(report.changes_batch))

    # What is true at every moment.

    @invariant()
    def rows_are_as_the_model_says(self) -> None:
        rows = {row["id"]: row for row in self.wait(self.engine.fetch("SELECT * FROM batches"))}
        for model in self.models:
            row = rows.get(model.id)
            if row is None:
                # Nobody has sent anything of it yet.
                assert model == BatchModel(model.id, model.owner, model.kind, model.size)
                continue
            assert row["status"] == model.status, model
            assert (row["status"] in FINISHED) == (row["finished_at"] is not None)
            assert row["received"] == model.stored
            reported = (row["succeeded"], row["failed"], row["cancelled"], row["skipped"])
            if model.is_cut_short:
                assert reported == (0, 0, model.size if model.is_sealed else model.stored, 0)
            elif model.is_skipped:
                assert reported == (0, 0, 0, row["total"])
            else:
                counts = (model.count("succeeded"), model.count("failed"), model.count("cancelled"))
                assert reported == (*counts, 0), model

    @invariant()
    def every_item_has_one_result_or_one_chunk(self) -> None:
        columns = "batch_id, position, status::text, result, error_code"
        results = self.wait(self.engine.fetch(f"SELECT {columns} FROM results"))
        chunks = self.wait(
            self.engine.fetch("SELECT batch_id, positions, first_position, last_position FROM chunks")
        )
        for model in self.models:
            own = [row for row in results if row["batch_id"] == model.id]
            ended = {row["position"]: row["status"] for row in own}
            assert ended == model.ended
            for row in own:
                payload, code = model.payloads[row["position"]], model.codes.get(row["position"])
                expected_result = str(payload) if row["status"] == "succeeded" else None
                assert (row["result"], row["error_code"]) == (expected_result, code), model
            waiting: list[int] = []
            for chunk in chunks:
                if chunk["batch_id"] == model.id:
                    run = range(chunk["first_position"], chunk["last_position"] + 1)
                    held = chunk["positions"] if chunk["positions"] is not None else run
                    waiting += [position for position in held if position not in ended]
            expected = model.pending if model.was_cut and model.phase != "over" else set()
            assert sorted(waiting) == sorted(expected), model

    @invariant()
    def each_end_is_told_once(self) -> None:
        async def reported() -> Counter[UUID]:
            async with self.engine.postgres.connection() as connection:
                messages = await waiting_messages(connection)
            ended = [m.body for m in messages if m.message_type == BatchFinished.message_type]
            return Counter(UUID(orjson.loads(body)["batch"]["id"]) for body in ended)

        times = self.wait(reported())
        # An upload that nobody ever described has no reader.
        assert times == {model.id: model.endings for model in self.models if model.endings}

    def teardown(self) -> None:
        """Let all work continue undisturbed, and check that complete batches end soon."""
        for model in self.models:
            if model.is_described and not model.is_sealed and model.appended == model.size:
                self.seal(self.models.index(model))
            self.resume(self.models.index(model))
        for what in PAUSABLE:
            self.pause_or_resume_work(what, False)
        for _ in range(120):
            self.wait(self.engine.execute("UPDATE chunks SET due_at = now() WHERE state = 'delayed'"))
            self.coordinate(None)
            self.let_the_period_pass()
            self.let_through()
            self.claim(4, 0)
            while self.live:
                self.finish(0, ["succeed"] * 4)
            if all(model.phase in ("over", "open") for model in self.models):
                break
        for model in self.models:
            is_complete = model.is_described and model.is_sealed and model.stored == model.size
            assert model.phase == "over" or (model.phase == "open" and not is_complete), model
        self.rows_are_as_the_model_says()
        self.every_item_has_one_result_or_one_chunk()
        self.each_end_is_told_once()
        self.each_end_is_followed_by_a_task()
        self.assert_what_follows_has_the_rights_of_now()


@pytest.fixture
def machine(dsn: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[type[LifeCycle]]:
    """Yield a state machine with its own loop and engine: Hypothesis runs outside the tests' loop."""
    # A busy machine cuts no step of the coordinator: the model knows whole ones only.
    for module in (coordinator, owner_turns):
        monkeypatch.setattr(module, "TURN_S", 60)
    with asyncio.Runner() as runner:
        engine = BatchEngine(dsn)
        runner.run(engine.open())
        yield type("LifeCycleHere", (LifeCycle,), {"engine": engine, "runner": runner})
        runner.run(engine.close())


@pytest.mark.parametrize(
    "examples",
    [
        # Bounded by the number of examples: a quarter of a minute, or two on a busy machine.
        pytest.param(25, marks=pytest.mark.timeout(400)),
        pytest.param(300, marks=[pytest.mark.long, pytest.mark.timeout(1800)]),
    ],
)
def test_counts_order_exactness_and_shares_hold_in_whatever_order_things_happen(
    machine: type[LifeCycle], examples: int
) -> None:
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=examples,
            stateful_step_count=40,
            derandomize=True,
            database=None,
            deadline=None,
            suppress_health_check=list(HealthCheck),
            # The search for the smallest example would take longer than a process may be busy with one test.
            phases=[Phase.generate],
        ),
    )
