"""The order in which recipients in hand get connections: they take turns by stream, owner and domain."""

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
from emailer.sending.lanes import STREAMS, MailLane
from emailer.sending.rooms import UploadRooms

# A domain whose attempts take longer than this, on average, gets fewer connections.
_SLOW_S = 1.0
_MOST_REMEMBERED = 1000
# Mails of an owner whose templates are being rendered, or wait for that.
_MOST_RENDERING = 2

Key = TypeVar("Key", bound=Hashable)
# Recipients of plain mails do not queue behind those that wait for a template or for a room.
_Line = tuple[MailLane, bool, bool]


class SendingTurns:
    """Distributes the recipients in hand among a number of connections.

    Doubtful domains are those that have not answered yet, or are slow; a domain also counts as slow while a
    running attempt takes long. Bulk mail, a single domain, and all doubtful domains together each get at most
    three quarters of the connections; bulk mail to doubtful domains, the doubtful domains of one owner, and a
    single doubtful domain get at most half. While many domains wait, a slow one gets just an equal share.

    An owner with half of the connections gets another one only when nobody else can use it. At most half of
    the connections render templates, at most two of them for one owner, and the last only for an owner that
    has none; mails with uploads begin when there is a room. No domain gets more than `most_of_domain`.
    """

    def __init__(
        self,
        connections: int,
        *,
        room_left: Callable[[UUID], None] = lambda _: None,
        most_of_domain: Callable[[str], int | None] = lambda _: None,
        comes_last: Callable[[str], bool] = lambda _: False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._connections = connections
        self._clock = clock
        self._most_of_domain = most_of_domain
        self._comes_last = comes_last
        self._reserved = connections // 4 or int(connections > 1)
        self._half = max(1, connections // 2)
        self._rendering_places = max(1, min(connections - 1, max(2, connections // 2)))
        self._rooms = UploadRooms(is_quick=self.is_quick, left=room_left)
        self._waiting: dict[Stream, OrderedDict[_Line, deque[Job]]] = {
            stream: OrderedDict() for stream in STREAMS
        }
        self._waiting_domains: Counter[str] = Counter()
        # The connections in use: by owner and domain, by owner, by domain, and by bulk mail.
        self._busy: Counter[tuple[str, str]] = Counter()
        self._busy_owners: Counter[str] = Counter()
        self._busy_domains: Counter[str] = Counter()
        self._busy_bulk = 0
        # The owners of jobs whose template is being rendered, by the identity of the job: a recipient that
        # was lost to another process, and came back, can be there twice.
        self._rendering: dict[int, str] = {}
        # When the other running attempts began, by domain, the oldest first.
        self._under_way: dict[str, dict[int, float]] = {}
        self._seconds: OrderedDict[str, float] = OrderedDict()
        self._streams = deque(STREAMS)
        # One future for each idle connection.
        self._idle: deque[asyncio.Future[None]] = deque()

    def put(self, job: Job) -> None:
        """Let `job` wait for its turn."""
        line = job.lane, job.needs_rendering, job.has_uploads
        self._waiting[job.stream].setdefault(line, deque()).append(job)
        self._waiting_domains[job.domain] += 1
        self._wake()

    async def take(self) -> Job:
        """Return the next job whose turn it is.

        Call `ready` once the content of its mail is available, and `done` when the attempt is over.
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
        # A change may allow several jobs to begin: each that does wakes the next.
        self._wake()
        self._count(job, 1)
        if job.needs_rendering:
            self._rendering[id(job)] = job.mail.owner_id
        if job.has_uploads:
            self._rooms.enter(job.mail.id, owner_id=job.mail.owner_id, domain=job.domain)
        return job

    def ready(self, job: Job) -> None:
        """Note that the mail's content is available: the time from now on is attributed to the domain."""
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
        """Remove and return all waiting jobs."""
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
        """Wake one idle connection; if it finds no job, neither would the others."""
        while self._idle:
            waiter = self._idle.popleft()
            if not waiter.done():
                waiter.set_result(None)
                return

    def _pick(self) -> Job | None:
        """Return the next job that may begin; jobs of owners that have their share already come last."""
        for is_first, stream in product((True, False), tuple(self._streams)):
            most = self._half if is_first else self._connections
            self._streams.rotate(-1)
            if stream == "bulk" and self._busy_bulk >= self._connections - self._reserved:
                continue
            lines = self._waiting[stream]
            for number, (line, jobs) in enumerate(lines.items(), start=1):
                owner_id = line[0].owner_id
                if self._busy_owners.get(owner_id, 0) >= most or not self._may_begin(jobs[0]):
                    continue
                if self._comes_last(owner_id) and (
                    is_first or not all(map(self._comes_last, self._busy_owners))
                ):
                    continue
                # Lines that were skipped move behind those that were not examined.
                for passed in tuple(islice(lines, number)):
                    lines.move_to_end(passed)
                job = jobs.popleft()
                if not jobs:
                    del lines[line]
                _add(self._waiting_domains, job.domain, -1)
                return job
        return None

    def _may_begin(self, job: Job) -> bool:
        owner_id, domain = job.mail.owner_id, job.domain
        if self._busy_domains.get(domain, 0) >= self._limit(domain):
            return False
        if not self.is_quick(domain):
            doubtful = [(owner, count) for (owner, of), count in self._busy.items() if not self.is_quick(of)]
            if sum(count for owner, count in doubtful if owner == owner_id) >= self._half:
                return False
            # Bulk mail leaves a part of these, too, to transactional mail.
            reserved = self._reserved * (2 if job.stream == "bulk" else 1)
            if sum(count for _, count in doubtful) >= max(1, self._connections - reserved):
                return False
        if job.needs_rendering:
            own = list(self._rendering.values()).count(owner_id)
            # The last place is for an owner that has none.
            if own >= _MOST_RENDERING or len(self._rendering) >= self._rendering_places - (own > 0):
                return False
        return not job.has_uploads or self._rooms.has_room(job.mail.id, owner_id=owner_id, domain=domain)

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
    # Counter's own lookups of absent keys, and its deletions, are functions in Python.
    if count := counts.get(key, 0) + change:
        counts[key] = count
    else:
        counts.pop(key, None)
