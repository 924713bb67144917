"""The messages that wait in an outbox, each by itself, however they share its rows."""

from __future__ import annotations

from chassis import outbox_rows
from chassis.broker.envelope import Outgoing
from chassis.postgres import Connection


async def waiting_messages(connection: Connection, *, after: int = 0) -> list[Outgoing]:
    """Return the messages in the rows behind the id `after`, oldest first."""
    rows = await connection.fetch("SELECT * FROM outbox WHERE id > $1 ORDER BY id", after)
    return [message for row in rows for message in outbox_rows.read(row, opened=True).messages]
