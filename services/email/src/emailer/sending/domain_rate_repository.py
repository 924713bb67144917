"""Charges for attempts at domains with a rate, in PostgreSQL: functions on the caller's connection."""

from __future__ import annotations

from collections.abc import Mapping

from chassis import queries
from chassis.postgres import Connection, Row
from emailer.mails.domain_limits import Rate

_SQL = queries.of("emailer")


async def measure(connection: Connection, rates: Mapping[str, Rate]) -> list[Row]:
    """Return the attempts charged to each domain within the window of its rate, and when that opens again."""
    windows = [rate.window_s for rate in rates.values()]
    return await connection.fetch(_SQL["measure_domains"], list(rates), windows)


async def charge(connection: Connection, domain: str, rate: Rate) -> bool:
    """Charge one attempt at `domain`; return False when its rate is used up. Call it in a transaction."""
    # A separate statement, so that the next one sees what earlier transactions have charged.
    await connection.execute(_SQL["lock_domain_rate"], domain)
    arguments = domain, rate.attempts, rate.window_s, rate.slot_s
    return await connection.fetchval(_SQL["charge_domain"], *arguments) is not None


async def remove_old(connection: Connection) -> None:
    """Remove charges that no longer count for any rate."""
    await connection.execute(_SQL["remove_domain_charges"])
