"""A scenario: a fault under a load, and its result."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Collection
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import dataclass, field, replace

from faults import audit, load
from faults.harm import Harm
from faults.ledger import Balance, Ledger
from faults.load import AnswerCounts, EvenLoad, LoadRequest, WorkCounts
from faults.matrix import CAP_S
from faults.rig import Rig

_BEFORE_S = 1.0


@dataclass(frozen=True)
class Scenario:
    """A fault (`strike`) that happens while work is sent evenly over `seconds`.

    `prepare` sees the work before it is sent, and can script the relay by its recipients. `around` holds from
    before the first piece of work until all is settled: what takes a busy machine seconds to set up must not
    find the work done. `parks` is how many messages the scenario itself makes unreadable. `answers` are what
    senders may be told besides 202, and in any case within `matrix.CAP_S`. `is_quick` scenarios run with the
    tests.
    """

    name: str
    title: str
    strike: Harm
    seconds: float
    counts: WorkCounts = field(default_factory=WorkCounts)
    prepare: Callable[[Rig, list[LoadRequest], random.Random], None] = lambda *_: None
    around: Callable[[Rig], AbstractAsyncContextManager[None]] = lambda _: nullcontext()
    parks: int = 0
    recovery_s: float = 60
    answers: Collection[str] = ()
    is_quick: bool = False

    def enlarged(self, factor: int) -> Scenario:
        """Return the same with `factor` times the work in twice the time."""
        counts = replace(
            self.counts,
            mails=self.counts.mails * factor,
            tasks=self.counts.tasks * factor,
            batches=self.counts.batches * factor,
            uploads=self.counts.uploads * factor,
        )
        return replace(self, counts=counts, seconds=self.seconds * 2)


@dataclass(frozen=True)
class Row:
    """The result of a scenario. `complaints` is empty when all promises were kept."""

    scenario: Scenario
    seed: int
    balance: Balance
    answers: AnswerCounts
    recovery_s: float
    settled_s: float
    complaints: tuple[str, ...]

    @property
    def passed(self) -> bool:
        """Return whether nothing was lost and nothing is unexplained."""
        return not self.complaints


async def run(rig: Rig, scenario: Scenario, *, seed: int) -> Row:
    """Send the load, strike, wait until the product is well again, and do the books."""
    rng = random.Random(f"{scenario.name}-{seed}")
    ledger = Ledger()
    work = load.plan(scenario.counts, ledger, rng)
    scenario.prepare(rig, work, rng)
    loading = EvenLoad(rig, work, ledger, seconds=scenario.seconds)
    async with scenario.around(rig):
        task = asyncio.create_task(loading.run())
        try:
            await asyncio.sleep(_BEFORE_S)
            await scenario.strike(rig, rng)
            recovery_s = await rig.recovered(timeout_s=scenario.recovery_s)
            ended = time.monotonic()
            await task
            await audit.settle(rig, ledger)
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            await rig.calm()
    balance = ledger.balance()
    complaints = (
        *balance.complaints,
        *_unpromised(scenario, loading.answers),
        *await _complaints(rig, scenario),
    )
    return Row(scenario, seed, balance, loading.answers, recovery_s, time.monotonic() - ended, complaints)


def _unpromised(scenario: Scenario, answers: AnswerCounts) -> list[str]:
    """Return the answers that no caller should get: other ones than promised, or later."""
    allowed = {"202", *scenario.answers}
    found = [
        f"answered {what}, {count} times" for what, count in answers.counts.items() if what not in allowed
    ]
    if answers.slowest_s > CAP_S:
        found.append(f"{answers.slowest} after {answers.slowest_s:.1f} s, over {CAP_S} s")
    return found


async def _complaints(rig: Rig, scenario: Scenario) -> list[str]:
    parked = await rig.parked()
    found = sum(parked.values())
    complaints = []
    if found != scenario.parks:
        complaints.append(f"{found} messages are parked instead of {scenario.parks}: {parked}")
    return complaints
