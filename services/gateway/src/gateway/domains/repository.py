"""The gateway's copy of the verified sender domains: functions on the caller's connection."""

from __future__ import annotations

from collections.abc import Collection

from chassis import queries
from chassis.postgres import Connection
from contracts.domains import DomainChanged

_SQL = queries.of("gateway")

# Longer than any message waits before it is parked; email checks the senders of later replays again.
_KEEP_DAYS = 30
_MOST_FORGOTTEN = 100


async def note(connection: Connection, change: DomainChanged) -> None:
    """Store the state of a domain unless a newer one is known; remove some that ended long ago."""
    await connection.execute(
        _SQL["note_sender_domain"],
        change.domain_id,
        change.owner_id,
        change.name,
        change.is_verified,
        change.version,
    )
    await connection.execute(_SQL["forget_sender_domains"], _KEEP_DAYS, _MOST_FORGOTTEN)


async def verified(connection: Connection, owner_id: str, names: Collection[str]) -> set[str]:
    """Return the domains among `names` that the owner may send from."""
    rows = await connection.fetch(_SQL["find_sender_domains"], owner_id, list(names))
    return {row["name"] for row in rows}
