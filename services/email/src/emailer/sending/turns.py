"""Whose turn it is at the connections: the recipients in hand take turns by stream, owner and domain."""

from __future__ import annotations

import asyncio
import time
from collections import Counter, OrderedDict, deque
from collections.abc import Callable
from uuid import UUID

from contracts.mail import Stream
from emailer.sending.attempts import Job
from emailer.sending.lanes import STREAMS, Lane

# A domain whose attempts take longer than this, on average, gets fewer connections.
_SLOW_S = 1.0
_MOST_REMEMBERED = 1000


class Turns:
    """Hands out the recipients in hand to a number of connections.

    A quarter of the connections is never given to bulk mail, nor to a single domain; a domain that has not
    answered yet, or is slow, gets half of them at most, and a slow one of several as many as there are for
    each while others wait. A domain is slow, too, while an attempt that is under way takes long.
    """

    def __init__(self, connections: int, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._connections = connections
        self._clock = clock
        self._reserved = connections // 4 or int(connections > 1)
        self._waiting: dict[Stream, OrderedDict[Lane, deque[Job]]] = {
            stream: OrderedDict() for stream in STREAMS
        }
        self._waiting_domains: Counter[str] = Counter()
        # When the attempts that are under way began, by domain, the oldest first.
        self._busy: dict[str, dict[tuple[UUID, int], float]] = {}
        self._busy_bulk = 0
        self._seconds: OrderedDict[str, float] = OrderedDict()
        self._streams = deque(STREAMS)
        self._changed = asyncio.Event()

    def put(self, job: Job) -> None:
        """Let `job` wait for its turn."""
        self._waiting[job.stream].setdefault(job.lane, deque()).append(job)
        self._waiting_domains[job.domain] += 1
        self._changed.set()

    async def take(self) -> Job:
        """Return the next job whose turn it is; `done` must be called when it is over."""
        while (job := self._pick()) is None:
            self._changed.clear()
            await self._changed.wait()
        self._busy.setdefault(job.domain, {})[job.key] = self._clock()
        self._busy_bulk += job.stream == "bulk"
        return job

    def done(self, job: Job, *, took_s: float | None = None) -> None:
        """Note that the connection is free again; `took_s` is how long an attempt took."""
        # A recipient that was lost to another process, and came back, can be there twice.
        busy = self._busy.get(job.domain, {})
        busy.pop(job.key, None)
        if not busy:
            self._busy.pop(job.domain, None)
        self._busy_bulk -= job.stream == "bulk"
        if took_s is not None:
            known = self._seconds.pop(job.domain, took_s)
            self._seconds[job.domain] = 0.7 * known + 0.3 * took_s
            if len(self._seconds) > _MOST_REMEMBERED:
                self._seconds.popitem(last=False)
        self._changed.set()

    def take_all(self) -> list[Job]:
        """Return everything that waits, which is not waiting any more."""
        jobs = [job for lanes in self._waiting.values() for jobs in lanes.values() for job in jobs]
        for lanes in self._waiting.values():
            lanes.clear()
        self._waiting_domains.clear()
        return jobs

    def is_slow(self, domain: str) -> bool:
        """Return whether attempts to reach `domain` take long."""
        if self._seconds.get(domain, 0) > _SLOW_S:
            return True
        oldest = next(iter(self._busy.get(domain, {}).values()), None)
        return oldest is not None and self._clock() - oldest > _SLOW_S

    def is_quick(self, domain: str) -> bool:
        """Return whether `domain` has answered lately, and not slowly."""
        return domain in self._seconds and not self.is_slow(domain)

    def _pick(self) -> Job | None:
        for stream in tuple(self._streams):
            self._streams.rotate(-1)
            if stream == "bulk" and self._busy_bulk >= self._connections - self._reserved:
                continue
            lanes = self._waiting[stream]
            for lane in tuple(lanes):
                lanes.move_to_end(lane)
                if len(self._busy.get(lane.domain, ())) >= self._limit(lane.domain):
                    continue
                job = lanes[lane].popleft()
                if not lanes[lane]:
                    del lanes[lane]
                self._waiting_domains[job.domain] -= 1
                if not self._waiting_domains[job.domain]:
                    del self._waiting_domains[job.domain]
                return job
        return None

    def _limit(self, domain: str) -> int:
        if self.is_slow(domain):
            return max(1, self._connections // max(2, len(self._waiting_domains)))
        if domain not in self._seconds:
            return max(1, self._connections // 2)
        return self._connections - self._reserved
