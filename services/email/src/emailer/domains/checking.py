"""Checks of domains' records: when their owner asks for one, and periodically."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime

from chassis import logging, metrics, redaction
from chassis.places import Places
from chassis.postgres import DATABASE_FAILURES, Postgres
from emailer.domains import progress, records, repository
from emailer.domains.lookups import DnsLookups
from emailer.domains.progress import CheckSchedule
from emailer.domains.records import DnsAnswer, Expected, RecordSettings
from emailer.domains.stored import StoredDomain

log = logging.get(__name__)

# Checks of one owner at a time: one of a domain whose DNS servers do not answer takes long.
MOST_OF_OWNER = 2
MOST_AT_A_TIME = 20
_LEASE_S = 60.0
_LOOK_EVERY_S = 5.0
_STATES = ("pending", "verified", "losing", "lost")


class DomainChecks:
    """Queries DNS, and stores the resulting state of the domain."""

    def __init__(
        self,
        postgres: Postgres,
        lookups: DnsLookups,
        settings: RecordSettings,
        schedule: CheckSchedule,
        *,
        announced: Callable[[], None],
    ) -> None:
        self._postgres = postgres
        self._lookups = lookups
        self._settings = settings
        self._schedule = schedule
        self._announced = announced
        self._places = Places("checks of sender domains", of_owner=MOST_OF_OWNER)

    async def check(self, domain: StoredDomain) -> StoredDomain | None:
        """Check the records of `domain`; return it updated, or None when it was removed meanwhile.

        Raise `TooManyAtOnce` when its owner has too many checks running.
        """
        owner_id = domain.owner_id
        with self._places.hold(owner_id):
            expected = records.expected(domain, self._settings)
            answers = await asyncio.gather(*(self._ask(record, owner_id) for record in expected))
        found = {record.key: answer for record, answer in zip(expected, answers, strict=True)}
        async with self._postgres.transaction() as connection:
            before = await repository.lock(connection, domain.id)
            if before is None:
                return None
            after = progress.after_check(
                before,
                # Its keys may have changed meanwhile.
                records.expected(before, self._settings),
                found,
                now=datetime.now(UTC),
                schedule=self._schedule,
            )
            await repository.save(connection, after)
            if before.status != after.status:
                await repository.announce(connection, after, is_verified=after.status == "verified")
        if before.status != after.status:
            log.info("domain changed", status=after.status, domain=after.name, domain_id=str(after.id))
            self._announced()
        states = {finding.state for finding in after.findings.values()}
        outcome = "complete" if states == {"found"} else "incomplete"
        metrics.EMAIL_DOMAIN_CHECKS.labels("unavailable" if "unavailable" in states else outcome).inc()
        return after

    async def _ask(self, record: Expected, owner_id: str) -> DnsAnswer:
        """Return the DNS answer for a record; if it is missing, that of the name it may be inherited from."""
        own = await self._lookups.values(record.name, record.type, owner_id=owner_id)
        above = records.inheritable(record) if records.judge(record, own) == "missing" else []
        found = await asyncio.gather(
            *(self._lookups.values(name, record.type, owner_id=owner_id) for name in above)
        )
        for name, answer in zip(above, found, strict=True):
            if records.judge(record, answer) != "missing":
                return replace(answer, inherited_from=name if answer.is_available else None)
        return own

    async def watch(self) -> None:
        """Check domains that are due, and update the metrics, until cancelled."""
        while True:
            count = 0
            try:
                count = await self.look()
                async with self._postgres.connection() as connection:
                    counts, late_s = await repository.measure(connection)
                for state in _STATES:
                    metrics.EMAIL_DOMAINS.labels(state).set(counts.get(state, 0))
                metrics.EMAIL_DOMAIN_CHECK_LATE.set(late_s)
            except DATABASE_FAILURES as error:
                log.warning("due domains could not be read", reason=redaction.safe_message(error))
            if count < MOST_AT_A_TIME:
                await asyncio.sleep(_LOOK_EVERY_S)

    async def look(self) -> int:
        """Check the domains that are due, one of each owner; return how many."""
        async with self._postgres.connection() as connection:
            due = await repository.take_due(connection, most=MOST_AT_A_TIME, lease_s=_LEASE_S)
        results = await asyncio.gather(*(self.check(domain) for domain in due), return_exceptions=True)
        for domain, result in zip(due, results, strict=True):
            if isinstance(result, BaseException):
                # It is due again when its lease ends; the others are done.
                log.warning(
                    "domain could not be checked", domain=domain.name, reason=redaction.safe_message(result)
                )
        return len(due)
