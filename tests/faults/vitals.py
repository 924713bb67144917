"""The vital signs of the processes over time: memory, readiness, and stalls of their loops."""

from __future__ import annotations

import asyncio
import math
import re
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import httpx
import psutil

from native.stack import Stack

_LAG = re.compile(r'tickwire_event_loop_lag_seconds_bucket\{le="([^"]+)"\} (\S+)')
# The loop says how late it is four times a second: a stall is at most so much longer than it says.
_BEAT_S = 0.25
_LOOK_EVERY_S = 0.2


@dataclass
class Vitals:
    """The extremes of one process: its memory, its longest wait for an answer, and why it was not ready."""

    limit_bytes: int
    peak_bytes: int = 0
    slowest_s: float = 0.0
    lag_s: float = 0.0
    unready: list[str] = field(default_factory=list)

    @property
    def stall_s(self) -> float:
        """Return the longest stall of the loop in seconds, as others waited for it and as it measured."""
        return min(self.slowest_s, self.lag_s + _BEAT_S)


@asynccontextmanager
async def watching(stack: Stack, limits: Mapping[str, int]) -> AsyncIterator[dict[str, Vitals]]:
    """Look at all services of `stack` for the length of the block; what was seen is complete after it."""
    watch, until = VitalsWatch(stack, limits), asyncio.Event()
    task = asyncio.create_task(watch.run(until))
    try:
        yield watch.vitals
        until.set()
        await task
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


class VitalsWatch:
    """Observes every service of a stack until it is told to stop."""

    def __init__(self, stack: Stack, limits: Mapping[str, int]) -> None:
        self._stack = stack
        self.vitals = {name: Vitals(limit) for name, limit in limits.items()}

    async def run(self, until: asyncio.Event) -> None:
        """Look at all services side by side until `until` is set."""
        async with asyncio.TaskGroup() as tasks:
            for name in self.vitals:
                tasks.create_task(self._look_at(name, until))

    async def _look_at(self, name: str, until: asyncio.Event) -> None:
        async with httpx.AsyncClient(base_url=self._stack.ops_url(name), timeout=10) as client:
            before = await _lags(client)
            while not until.is_set():
                self._weigh(name)
                await self._ask(name, client)
                await asyncio.sleep(_LOOK_EVERY_S)
            self.vitals[name].lag_s = _longest(before, await _lags(client))

    def _weigh(self, name: str) -> None:
        try:
            process = psutil.Process(self._stack.pids[name])
            found = [process, *process.children(recursive=True)]
            # As a container counts: what forks share once.
            weight = process.memory_info().rss + sum(one.memory_full_info().pss for one in found[1:])
        except psutil.NoSuchProcess:
            return
        self.vitals[name].peak_bytes = max(self.vitals[name].peak_bytes, weight)

    async def _ask(self, name: str, client: httpx.AsyncClient) -> None:
        vitals, started = self.vitals[name], time.monotonic()
        try:
            answer = await client.get("/readyz")
        except httpx.TransportError as error:
            vitals.unready.append(f"silent: {type(error).__name__}")
        else:
            if answer.status_code != 200:
                vitals.unready.append(str(answer.json().get("reasons")))
        vitals.slowest_s = max(vitals.slowest_s, time.monotonic() - started)


async def _lags(client: httpx.AsyncClient) -> dict[float, float]:
    try:
        text = (await client.get("/metrics")).text
    except httpx.TransportError:
        return {}
    return {float(bound.replace("+Inf", "inf")): float(number) for bound, number in _LAG.findall(text)}


def _longest(before: Mapping[float, float], after: Mapping[float, float]) -> float:
    """Return the bound that no beat between the two looks was later than."""
    if not after:
        return math.inf
    grown = {bound: after[bound] - before.get(bound, 0.0) for bound in after}
    if min(grown.values()) < 0:
        # The process has begun anew, with a count of its own.
        grown = dict(after)
    return min(bound for bound in grown if grown[bound] == grown[math.inf])
