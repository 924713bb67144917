"""The rates of destination domains, shared by all processes: whether an attempt may begin now."""

from __future__ import annotations

import contextlib
import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime

from chassis.postgres import DATABASE_FAILURES, Connection, Postgres
from emailer.mails.domain_limits import DomainLimits, in_ascii
from emailer.sending import attempts
from emailer.sending import domain_rate_repository as repository
from emailer.sending.attempts import Job, RecipientOutcome
from emailer.sending.lanes import MailLane

# If a domain's rate was used up within this many seconds, mails that wait for the domain wait for its rate.
_LATELY_S = 60.0
_CLEAN_EVERY_S = 600.0
_MOST_REMEMBERED = 10_000


class DomainRates:
    """Limits claims to what the rates allow, and charges each attempt when it begins.

    So mails beyond the rate wait in their lane, where they can be cancelled and block nobody. Only the charge
    is authoritative: when two processes claim for the same room, one of them gives the excess back.
    """

    def __init__(
        self, postgres: Postgres, limits: DomainLimits, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._postgres = postgres
        self._limits = limits
        self._clock = clock
        # The time until which a domain's rate is used up.
        self._closed: dict[str, float] = {}
        # The domains of jobs in hand whose attempts have not begun, by the identity of the job.
        self._unbegun: dict[int, str] = {}
        # The number of the last turn, by owner and domain; the most recent comes last.
        self._turns: OrderedDict[tuple[str, str], int] = OrderedDict()
        self._turn = 0
        self._clean_at = 0.0

    def is_closed(self, domain: str) -> bool:
        """Return whether the rate of a domain is used up now, as far as this process knows."""
        return bool(self._closed) and self._closed.get(in_ascii(domain), 0.0) > self._clock()

    def is_limiting(self, domain: str) -> bool:
        """Return whether the rate of a domain was used up within the last minute."""
        return self._closed.get(in_ascii(domain), 0.0) > self._clock() - _LATELY_S

    @property
    def opens_in_s(self) -> float:
        """The seconds until a rate that is used up has room again; infinity when none is used up."""
        now = self._clock()
        for domain in [domain for domain, until in self._closed.items() if until <= now - _LATELY_S]:
            del self._closed[domain]
        waits = [until - now for until in self._closed.values() if until > now]
        return max(0.01, min(waits, default=float("inf")))

    async def cut(
        self, connection: Connection, divided: Mapping[MailLane, int], *, claimed: Iterable[str]
    ) -> dict[MailLane, int]:
        """Return the shares `divided`, cut to the attempts that the rate of each domain allows now.

        `claimed` has the domains of recipients that are claimed already and not in hand yet.
        """
        rates = {
            in_ascii(lane.domain): rate for lane in divided if (rate := self._limits.of(lane.domain).rate)
        }
        if not rates:
            return dict(divided)
        taken = Counter(map(in_ascii, claimed)) + Counter(self._unbegun.values())
        rooms: dict[str, int] = {}
        for row in await repository.measure(connection, rates):
            domain = row["domain"]
            rooms[domain] = rates[domain].attempts - row["charged"] - taken[domain]
            if row["charged"] >= rates[domain].attempts:
                self._closed[domain] = self._clock() + max(0.0, row["opens_in_s"])
        limited = {lane: most for lane, most in divided.items() if in_ascii(lane.domain) in rates}
        free = {lane: most for lane, most in divided.items() if lane not in limited}
        return free | self._shared(limited, rooms)

    def hold(self, job: Job) -> None:
        """Reserve room for a claimed job whose attempt will begin."""
        if self._limits.of(job.domain).rate is not None:
            self._unbegun[id(job)] = in_ascii(job.domain)

    def release(self, job: Job) -> None:
        """Release the reservation of a job whose attempt has begun, or never will."""
        self._unbegun.pop(id(job), None)

    async def begin(self, job: Job) -> RecipientOutcome | None:
        """Charge the attempt that begins now; return None, or the outcome of a job that may not begin."""
        rate = self._limits.of(job.domain).rate
        if rate is None:
            return None
        domain, is_charged = in_ascii(job.domain), False
        with contextlib.suppress(*DATABASE_FAILURES):
            async with self._postgres.transaction() as connection:
                charged = await repository.charge(connection, domain, rate)
            is_charged = charged
        self.release(job)
        return None if is_charged else attempts.given_back(job, at=datetime.now(UTC))

    def count_closed(self) -> int:
        """Return the number of domains whose rate is used up now."""
        return sum(map(self.is_closed, self._closed))

    async def remove_old(self, connection: Connection) -> None:
        """Remove charges that no longer count for any rate, every ten minutes."""
        if (now := self._clock()) >= self._clean_at:
            self._clean_at = now + _CLEAN_EVERY_S
            await repository.remove_old(connection)

    def _shared(self, limited: Mapping[MailLane, int], rooms: dict[str, int]) -> dict[MailLane, int]:
        """Hand out the room of each domain one by one, first to the owner that has waited longest."""
        given: Counter[MailLane] = Counter()
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

    def _note_turn(self, lane: MailLane) -> None:
        self._turn += 1
        self._turns[lane.owner_id, lane.domain] = self._turn
        self._turns.move_to_end((lane.owner_id, lane.domain))
        if len(self._turns) > _MOST_REMEMBERED:
            self._turns.popitem(last=False)
