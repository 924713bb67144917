"""The rates of destination domains: who may begin an attempt now, over all processes."""

from __future__ import annotations

import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime

from chassis import queries
from chassis.postgres import DATABASE_FAILURES, Connection, Postgres
from emailer.sending import attempts
from emailer.sending.attempts import Job, Outcome
from emailer.sending.domain_limits import DomainLimits, Rate, in_ascii
from emailer.sending.lanes import Lane

SQL = queries.load("emailer")

# A domain whose rate was used up within so many seconds: what waits for it waits for its rate.
_LATELY_S = 60.0
_CLEAN_EVERY_S = 600.0
_MOST_REMEMBERED = 10_000


class DomainRates:
    """Claims are cut to what the rates have room for; each attempt is charged when it begins.

    So what is over the rate waits in its lane, where it can be cancelled, and is in nobody's way. The charge
    is what counts: when two processes claim for the same room, one of them gives back what is too much.
    """

    def __init__(
        self, postgres: Postgres, limits: DomainLimits, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._postgres = postgres
        self._limits = limits
        self._clock = clock
        # Until when the rate of a domain is used up.
        self._closed: dict[str, float] = {}
        # The domains of jobs in hand that have not begun, by the identity of the job.
        self._unbegun: dict[int, str] = {}
        # Who got room last comes last: the number of the last turn, by owner and domain.
        self._turns: OrderedDict[tuple[str, str], int] = OrderedDict()
        self._turn = 0
        self._clean_at = 0.0

    def is_closed(self, domain: str) -> bool:
        """Return whether the rate of a domain is used up at the moment, as far as this process knows."""
        return bool(self._closed) and self._closed.get(in_ascii(domain), 0.0) > self._clock()

    def is_limiting(self, domain: str) -> bool:
        """Return whether the rate of a domain was used up within the last minute."""
        return self._closed.get(in_ascii(domain), 0.0) > self._clock() - _LATELY_S

    @property
    def opens_in_s(self) -> float:
        """The seconds until one of the rates that are used up has room again; infinity without any."""
        now = self._clock()
        for domain in [domain for domain, until in self._closed.items() if until <= now - _LATELY_S]:
            del self._closed[domain]
        waits = [until - now for until in self._closed.values() if until > now]
        return max(0.01, min(waits, default=float("inf")))

    async def cut(
        self, connection: Connection, divided: Mapping[Lane, int], *, claimed: Iterable[str]
    ) -> dict[Lane, int]:
        """Return the shares `divided` with no more for a domain than its rate has room for now.

        `claimed` has the domains of what is claimed already and not in hand yet.
        """
        rates = {
            in_ascii(lane.domain): rate for lane in divided if (rate := self._limits.of(lane.domain).rate)
        }
        if not rates:
            return dict(divided)
        taken = Counter(map(in_ascii, claimed)) + Counter(self._unbegun.values())
        rooms: dict[str, int] = {}
        windows = [rate.window_s for rate in rates.values()]
        for row in await connection.fetch(SQL["measure_domains"], list(rates), windows):
            domain = row["domain"]
            rooms[domain] = rates[domain].attempts - row["charged"] - taken[domain]
            if row["charged"] >= rates[domain].attempts:
                self._closed[domain] = self._clock() + max(0.0, row["opens_in_s"])
        limited = {lane: most for lane, most in divided.items() if in_ascii(lane.domain) in rates}
        free = {lane: most for lane, most in divided.items() if lane not in limited}
        return free | self._shared(limited, rooms)

    def hold(self, job: Job) -> None:
        """Note that a claimed job will begin: there is less room until it has."""
        if self._limits.of(job.domain).rate is not None:
            self._unbegun[id(job)] = in_ascii(job.domain)

    def release(self, job: Job) -> None:
        """Note that a job has begun, or never will."""
        self._unbegun.pop(id(job), None)

    async def begin(self, job: Job) -> Outcome | None:
        """Charge the attempt that begins now; return the outcome of a job that may not begin."""
        rate = self._limits.of(job.domain).rate
        if rate is None:
            return None
        try:
            is_charged = await self._charge(in_ascii(job.domain), rate)
        except DATABASE_FAILURES:
            is_charged = False
        self.release(job)
        return None if is_charged else attempts.given_back(job, at=datetime.now(UTC))

    def count_closed(self) -> int:
        """Return of how many domains the rate is used up at the moment."""
        return sum(map(self.is_closed, self._closed))

    async def remove_old(self, connection: Connection) -> None:
        """Remove charges that no rate looks at any more, now and then."""
        if (now := self._clock()) >= self._clean_at:
            self._clean_at = now + _CLEAN_EVERY_S
            await connection.execute(SQL["remove_domain_charges"])

    async def _charge(self, domain: str, rate: Rate) -> bool:
        async with self._postgres.transaction() as connection:
            # A statement of its own: the next one must see what those before it have charged.
            await connection.execute(SQL["lock_domain_rate"], domain)
            arguments = domain, rate.attempts, rate.window_s, rate.slot_s
            return await connection.fetchval(SQL["charge_domain"], *arguments) is not None

    def _shared(self, limited: Mapping[Lane, int], rooms: dict[str, int]) -> dict[Lane, int]:
        """Hand out the room of each domain one by one: first to who has waited longest for some."""
        given: Counter[Lane] = Counter()
        waiting = sorted(limited, key=lambda lane: self._turns.get((lane.owner_id, lane.domain), 0))
        while waiting:
            waiting = [lane for lane in waiting if given[lane] < limited[lane]]
            waiting = [lane for lane in waiting if rooms[in_ascii(lane.domain)] > 0]
            for lane in waiting:
                if rooms[domain := in_ascii(lane.domain)] > 0:
                    rooms[domain] -= 1
                    given[lane] += 1
                    self._note_turn(lane)
        return dict(given)

    def _note_turn(self, lane: Lane) -> None:
        self._turn += 1
        self._turns[lane.owner_id, lane.domain] = self._turn
        self._turns.move_to_end((lane.owner_id, lane.domain))
        if len(self._turns) > _MOST_REMEMBERED:
            self._turns.popitem(last=False)
