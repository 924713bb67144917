"""The gateway's copy of the verified sender domains: functions on the caller's connection."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from chassis.postgres import Connection
from contracts.domains import DomainChanged

# Longer than any message waits before it is parked; email checks the senders of later replays again.
_KEEP_DAYS = 30
_MOST_FORGOTTEN = 100


class SenderDomainRepository:
    """Reads and writes the copy of the verified domains."""

    def __init__(self, queries: Mapping[str, str]) -> None:
        self._queries = queries

    async def note(self, connection: Connection, change: DomainChanged) -> None:
        """Store the state of a domain unless a newer one is known; remove some that ended long ago."""
        await connection.execute(
            self._queries["note_sender_domain"],
            change.domain_id,
            change.owner_id,
            change.name,
            change.is_verified,
            change.version,
        )
        await connection.execute(self._queries["forget_sender_domains"], _KEEP_DAYS, _MOST_FORGOTTEN)

    async def verified(self, connection: Connection, owner_id: str, names: Collection[str]) -> set[str]:
        """Return the domains among `names` that the owner may send from."""
        rows = await connection.fetch(self._queries["find_sender_domains"], owner_id, list(names))
        return {row["name"] for row in rows}
