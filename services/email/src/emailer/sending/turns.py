"""Whose turn it is at the connections: the recipients in hand take turns by stream, owner and domain."""

from __future__ import annotations

import asyncio
import time
from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Hashable
from itertools import islice, product
from typing import TypeVar
from uuid import UUID

from contracts.mail import Stream
from emailer.sending.attempts import Job
from emailer.sending.lanes import STREAMS, Lane
from emailer.sending.rooms import UploadRooms

# A domain whose attempts take longer than this, on average, gets fewer connections.
_SLOW_S = 1.0
_MOST_REMEMBERED = 1000
# Mails of an owner whose templates are being rendered, or wait for that.
_MOST_RENDERING = 2

Key = TypeVar("Key", bound=Hashable)
# Recipients of plain mails do not stand behind those that wait for a template or for room.
_Line = tuple[Lane, bool, bool]


class Turns:
    """Hands out the recipients in hand to a number of connections.

    A quarter of the connections is never given to bulk mail, nor to a single domain, nor to the doubtful
    domains in all: those that have not answered yet, or are slow. One of these gets half of the connections
    at most, and so do those of one owner, and those of bulk mail; a slow one of several gets as many as there
    are for each while others wait. A domain is slow, too, while an attempt that is under way takes long.

    An owner that has half of the connections gets another one only when nobody else can use it. Templates are
    rendered at half of the connections, two of an owner as long as there is a place for another owner; mails
    with uploads begin when there is room. No domain gets more connections than `most_of_domain` says.
    """

    def __init__(
        self,
        connections: int,
        *,
        room_left: Callable[[UUID], None] = lambda _: None,
        most_of_domain: Callable[[str], int | None] = lambda _: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._connections = connections
        self._clock = clock
        self._most_of_domain = most_of_domain
        self._reserved = connections // 4 or int(connections > 1)
        self._half = max(1, connections // 2)
        self._rendering_places = max(1, min(connections - 1, max(2, connections // 2)))
        self._rooms = UploadRooms(is_quick=self.is_quick, left=room_left)
        self._waiting: dict[Stream, OrderedDict[_Line, deque[Job]]] = {
            stream: OrderedDict() for stream in STREAMS
        }
        self._waiting_domains: Counter[str] = Counter()
        # The connections that are in use, by owner and domain, by each of them, and by bulk mail.
        self._busy: Counter[tuple[str, str]] = Counter()
        self._busy_owners: Counter[str] = Counter()
        self._busy_domains: Counter[str] = Counter()
        self._busy_bulk = 0
        # The owners of those whose template is not rendered yet, by the identity of the job: a recipient that
        # was lost to another process, and came back, can be there twice.
        self._rendering: dict[int, str] = {}
        # When the others began, by domain, the oldest first.
        self._under_way: dict[str, dict[int, float]] = {}
        self._seconds: OrderedDict[str, float] = OrderedDict()
        self._streams = deque(STREAMS)
        # One wait for each connection that has nothing to do.
        self._idle: deque[asyncio.Future[None]] = deque()

    def put(self, job: Job) -> None:
        """Let `job` wait for its turn."""
        line = job.lane, job.needs_rendering, job.has_uploads
        self._waiting[job.stream].setdefault(line, deque()).append(job)
        self._waiting_domains[job.domain] += 1
        self._wake()

    async def take(self) -> Job:
        """Return the next job whose turn it is.

        `ready` must be called when there is the content of its mail, and `done` when it is over.
        """
        while (job := self._pick()) is None:
            waiter = asyncio.get_running_loop().create_future()
            self._idle.append(waiter)
            try:
                await waiter
            except asyncio.CancelledError:
                if not waiter.cancelled():
                    self._wake()
                raise
        # A change may have let several begin: each that does wakes the next.
        self._wake()
        self._count(job, 1)
        if job.needs_rendering:
            self._rendering[id(job)] = job.mail.owner_id
        if job.has_uploads:
            self._rooms.enter(job.mail.id, owner_id=job.mail.owner_id, domain=job.domain)
        return job

    def ready(self, job: Job) -> None:
        """Note that the content of the mail is there: from now on it is the domain that takes time."""
        self._rendering.pop(id(job), None)
        self._under_way.setdefault(job.domain, {})[id(job)] = self._clock()
        self._wake()

    def done(self, job: Job) -> None:
        """Note that the connection is free again."""
        self._count(job, -1)
        self._rendering.pop(id(job), None)
        if job.has_uploads:
            self._rooms.rest(job.mail.id, domain=job.domain)
        under_way = self._under_way.get(job.domain, {})
        began = under_way.pop(id(job), None)
        if not under_way:
            self._under_way.pop(job.domain, None)
        if began is not None:
            took_s = self._clock() - began
            known = self._seconds.pop(job.domain, took_s)
            self._seconds[job.domain] = 0.7 * known + 0.3 * took_s
            if len(self._seconds) > _MOST_REMEMBERED:
                self._seconds.popitem(last=False)
        self._wake()

    def let_go(self, mail_id: UUID) -> None:
        """Note that no recipient of the mail is in hand any more."""
        self._rooms.leave(mail_id)
        self._wake()

    def take_all(self) -> list[Job]:
        """Return everything that waits, which is not waiting any more."""
        jobs = [job for lines in self._waiting.values() for jobs in lines.values() for job in jobs]
        for lines in self._waiting.values():
            lines.clear()
        self._waiting_domains.clear()
        return jobs

    def is_slow(self, domain: str) -> bool:
        """Return whether attempts to reach `domain` take long."""
        if self._seconds.get(domain, 0) > _SLOW_S:
            return True
        oldest = next(iter(self._under_way.get(domain, {}).values()), None)
        return oldest is not None and self._clock() - oldest > _SLOW_S

    def is_quick(self, domain: str) -> bool:
        """Return whether `domain` has answered lately, and not slowly."""
        return domain in self._seconds and not self.is_slow(domain)

    def _wake(self) -> None:
        """Let one that waits look again: what it finds nothing in has nothing for the others either."""
        while self._idle:
            waiter = self._idle.popleft()
            if not waiter.done():
                waiter.set_result(None)
                return

    def _pick(self) -> Job | None:
        """Return the next job that may begin; one of an owner that has its share already comes last."""
        for most, stream in product((self._half, self._connections), tuple(self._streams)):
            self._streams.rotate(-1)
            if stream == "bulk" and self._busy_bulk >= self._connections - self._reserved:
                continue
            lines = self._waiting[stream]
            for number, (line, jobs) in enumerate(lines.items(), start=1):
                if self._busy_owners[jobs[0].mail.owner_id] >= most or not self._may_begin(jobs[0]):
                    continue
                # Those that were passed over come behind those that were not looked at.
                for passed in tuple(islice(lines, number)):
                    lines.move_to_end(passed)
                return self._taken_from(lines, line)
        return None

    def _taken_from(self, lines: OrderedDict[_Line, deque[Job]], line: _Line) -> Job:
        job = lines[line].popleft()
        if not lines[line]:
            del lines[line]
        _add(self._waiting_domains, job.domain, -1)
        return job

    def _may_begin(self, job: Job) -> bool:
        owner_id, domain = job.mail.owner_id, job.domain
        if self._busy_domains[domain] >= self._limit(domain):
            return False
        if not self.is_quick(domain):
            doubtful = [(owner, count) for (owner, of), count in self._busy.items() if not self.is_quick(of)]
            if sum(count for owner, count in doubtful if owner == owner_id) >= self._half:
                return False
            # Bulk mail leaves a part of these to transactional mail, as it does of all connections.
            reserved = self._reserved * (2 if job.stream == "bulk" else 1)
            if sum(count for _, count in doubtful) >= max(1, self._connections - reserved):
                return False
        if job.needs_rendering and not self._may_render(owner_id):
            return False
        return not job.has_uploads or self._rooms.has_room(job.mail.id, owner_id=owner_id, domain=domain)

    def _may_render(self, owner_id: str) -> bool:
        own = list(self._rendering.values()).count(owner_id)
        # The last place is for an owner that has none.
        return own < _MOST_RENDERING and len(self._rendering) < self._rendering_places - (own > 0)

    def _limit(self, domain: str) -> int:
        if self.is_slow(domain):
            limit = max(1, self._connections // max(2, len(self._waiting_domains)))
        elif domain not in self._seconds:
            limit = self._half
        else:
            limit = self._connections - self._reserved
        return min(limit, self._most_of_domain(domain) or limit)

    def _count(self, job: Job, change: int) -> None:
        _add(self._busy, (job.mail.owner_id, job.domain), change)
        _add(self._busy_owners, job.mail.owner_id, change)
        _add(self._busy_domains, job.domain, change)
        self._busy_bulk += change * (job.stream == "bulk")


def _add(counts: Counter[Key], key: Key, change: int) -> None:
    counts[key] += change
    if not counts[key]:
        del counts[key]
