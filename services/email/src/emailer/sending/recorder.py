"""Recording of outcomes: many recipients in one transaction, together with the events that they cause."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from uuid import UUID

import asyncpg

from chassis import logging, metrics, redaction
from chassis.errors import Unavailable
from chassis.outbox import OutboxRelay
from chassis.postgres import Postgres
from emailer.bounces.domains import LABELS
from emailer.mails import announcing
from emailer.sending import outcome_learning, outcome_repository
from emailer.sending.attempts import RecipientOutcome
from emailer.suppression.rules import SuppressionTerms

log = logging.get(__name__)

_GROUP = 200
GATHER_S = 0.01
# If this many arrive within that time, more will follow: waiting twice as long halves the commits.
_MANY = 8
PAUSE_S = 0.5
_MOST_EXPIRED = 1000
# Attempts to write outcomes that PostgreSQL refuses for a fault of its own, such as a damaged page, before
# they count as such that can never be stored.
_MOST_FAULTS = 5
_DATA = (
    asyncpg.DataError,
    asyncpg.IntegrityConstraintViolationError,
    asyncpg.ProgramLimitExceededError,
)
_FAULTS = (asyncpg.InternalServerError, asyncpg.CardinalityViolationError, asyncpg.PLPGSQLError)


class OutcomeRecorder:
    """Collects outcomes and writes them in groups: up to 200, or those that arrive within 10 to 20 ms.

    `recorded` is called with outcomes that are written, or dropped because their data can never be stored.
    While the database is unavailable, or fails for a temporary reason, outcomes are kept.
    """

    def __init__(
        self,
        postgres: Postgres,
        relay: OutboxRelay,
        *,
        holder: UUID,
        suppression: SuppressionTerms,
        recorded: Callable[[Sequence[RecipientOutcome]], None],
    ) -> None:
        self._postgres = postgres
        self._relay = relay
        self._holder = holder
        self._suppression = suppression
        self._recorded = recorded
        self._waiting: list[RecipientOutcome] = []
        self._arrived = asyncio.Event()
        self._late = asyncio.Event()
        self._writable = asyncio.Event()
        self._writable.set()

    def add(self, outcome: RecipientOutcome) -> None:
        """Queue `outcome` to be written."""
        self._waiting.append(outcome)
        self._arrived.set()

    async def wait_writable(self) -> None:
        """Wait until outcomes can be written: nothing should be sent before that."""
        await self._writable.wait()

    async def run(self) -> None:
        """Write queued outcomes until cancelled."""
        while True:
            await self._arrived.wait()
            await self._gather()
            # Removed only once written: cancellation loses nothing.
            group = self._waiting[:_GROUP]
            await self._write_patiently(group)
            del self._waiting[: len(group)]
            self._recorded(group)
            if not self._waiting:
                self._arrived.clear()

    async def _gather(self) -> None:
        for _ in range(2):
            before = len(self._waiting)
            if before >= _GROUP // 2:
                return
            await asyncio.sleep(GATHER_S)
            if len(self._waiting) < before + _MANY:
                return

    async def _write_patiently(self, group: list[RecipientOutcome]) -> None:
        error, faults = await self._try(group), 0
        while error is not None and not _lies_in_data(error):
            faults += isinstance(error, _FAULTS)
            if faults == _MOST_FAULTS:
                break
            self._writable.clear()
            log.warning(
                "outcomes cannot be written", waiting=len(self._waiting), reason=redaction.safe_message(error)
            )
            await asyncio.sleep(PAUSE_S)
            error = await self._try(group)
        self._writable.set()
        if error is not None and len(group) > 1:
            # One outcome that cannot be written must not prevent the others.
            for outcome in group:
                await self._write_patiently([outcome])
        elif error is not None:
            # When its lease ends, it is recorded as ambiguous.
            log.error("outcome could not be written", email_id=str(group[0].job.mail.id), exc_info=error)

    async def _try(self, group: list[RecipientOutcome]) -> Exception | None:
        try:
            await self.write(group)
        except Exception as error:
            return error
        return None

    def wake_for_late(self) -> None:
        """Expire waiting recipients soon: the deadline of some has passed."""
        self._late.set()

    async def expire_late(self) -> None:
        """Expire waiting recipients whose deadline has passed, until cancelled.

        This does not depend on claims, which stop while the route is paused and lag behind in a long backlog.
        """
        while True:
            await self._late.wait()
            self._late.clear()
            with suppress(Unavailable, asyncpg.PostgresError, TimeoutError):
                while await self.expire() == _MOST_EXPIRED:
                    pass

    async def expire(self) -> int:
        """Expire recipients whose deadline has passed; return their number."""
        async with self._postgres.transaction() as connection:
            count, changes = await outcome_repository.expire(connection, most=_MOST_EXPIRED)
            await announcing.announce(connection, changes)
        if changes:
            self._relay.wake()
        metrics.EMAIL_ATTEMPTS.labels("expired").inc(count)
        return count

    async def write(self, group: Sequence[RecipientOutcome]) -> None:
        """Write outcomes and the events that they cause, all of them or none."""
        async with self._postgres.transaction() as connection:
            changes = await outcome_repository.record(connection, group, holder=self._holder)
            await outcome_learning.learn(connection, group, terms=self._suppression)
            await announcing.announce(connection, changes)
        if changes:
            self._relay.wake()
        _count(group)


def _count(group: Sequence[RecipientOutcome]) -> None:
    """Count written outcomes in the metrics, one increment per kind."""
    kinds, domains = Counter[str](), Counter[str]()
    for outcome in group:
        if outcome.attempt is not None:
            kinds[outcome.attempt.outcome] += 1
        elif outcome.status == "expired":
            kinds["expired"] += 1
        if outcome.status == "delivered" and outcome.attempt is not None:
            took = outcome.attempt.at - outcome.job.mail.dated
            metrics.EMAIL_DELIVERY_SECONDS.observe(max(0.0, took.total_seconds()))
            domains[LABELS.label(outcome.job.domain, owner_id=outcome.job.mail.owner_id)] += 1
    for kind, number in kinds.items():
        metrics.EMAIL_ATTEMPTS.labels(kind).inc(number)
    for domain, number in domains.items():
        metrics.EMAIL_DOMAIN_DELIVERIES.labels(domain).inc(number)


def _lies_in_data(error: Exception) -> bool:
    """Return whether a retry would fail, too; a deadlock, a full disk or a read-only server is temporary."""
    if isinstance(error, asyncpg.PostgresError):
        return isinstance(error, _DATA)
    return not isinstance(error, Unavailable | TimeoutError)
