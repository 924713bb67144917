"""The metrics of waiting recipients: those that are due, and those that wait for a decision."""

from __future__ import annotations

from chassis import metrics
from chassis.postgres import Postgres
from emailer.mails import repository
from emailer.sending.domain_rates import DomainRates
from emailer.sending.rounds import Rounds


async def measure(postgres: Postgres, rounds: Rounds, rates: DomainRates) -> None:
    """Update the gauges of recipients that are due or held, and of domains whose rate is used up."""
    async with rounds.lock, postgres.connection() as connection:
        count, waits = await rounds.measure(connection, is_limiting=rates.is_limiting)
        await rates.remove_old(connection)
        held = await repository.count_held(connection)
    metrics.EMAIL_DUE.set(count)
    for stream, oldest_s in waits.items():
        metrics.EMAIL_OLDEST_DUE.labels(stream).set(oldest_s)
    metrics.EMAIL_HELD.set(held)
    metrics.EMAIL_LIMITED_DOMAINS.set(rates.count_closed())
