"""Events about parked messages: accepted work has the id of its command, so clients can see its state."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from uuid import UUID

from chassis import outbox, queries
from chassis.broker import envelope
from chassis.postgres import Connection
from contracts.parked import ParkedChanged, ParkedState

_MOST_IDS = 1000
_SQL = queries.of("chassis")


async def tell(
    connection: Connection, state: ParkedState, message_ids: Iterable[str], *, reason: str | None = None
) -> None:
    """Write events to the outbox, in the transaction that changed the state of these messages."""
    ids: list[UUID] = []
    for text in message_ids:
        with suppress(ValueError):
            ids.append(UUID(text))
    if not ids:
        return
    at = await connection.fetchval(_SQL["read_clock"])
    events = [
        ParkedChanged(state=state, message_ids=ids[start : start + _MOST_IDS], reason=reason, at=at)
        for start in range(0, len(ids), _MOST_IDS)
    ]
    await outbox.add(connection, [envelope.event(event) for event in events])
