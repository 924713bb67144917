"""Telling what becomes of parked messages: whose id is that of accepted work has somebody who asks."""

from __future__ import annotations

from collections.abc import Iterable
from uuid import UUID

from chassis import outbox, queries
from chassis.broker import envelope
from chassis.postgres import Connection
from contracts.parked import ParkedChanged, ParkedState

_MOST_IDS = 1000


async def tell(
    connection: Connection, state: ParkedState, message_ids: Iterable[str], *, reason: str | None = None
) -> None:
    """Write events into the outbox, in the transaction that changed the state of these messages."""
    ids = [id_ for text in message_ids if (id_ := _id(text)) is not None]
    if not ids:
        return
    # By the clock of the database, which has seen all that was decided about a message before.
    at = await connection.fetchval(queries.load("chassis")["read_clock"])
    events = [
        ParkedChanged(state=state, message_ids=run, reason=reason, at=at) for run in _runs(ids, _MOST_IDS)
    ]
    await outbox.add(connection, [envelope.event(event) for event in events])


def _id(text: str) -> UUID | None:
    try:
        return UUID(text)
    except ValueError:
        return None


def _runs(ids: list[UUID], size: int) -> list[list[UUID]]:
    return [ids[start : start + size] for start in range(0, len(ids), size)]
