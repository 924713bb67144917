"""Work that is accepted together: its commands share a row, and repeated work sends none."""

from __future__ import annotations

from datetime import UTC, datetime
from uuid import UUID

import asyncpg
import orjson

from chassis.broker import envelope
from chassis.broker.envelope import Outgoing
from contracts.batches import CancelBatch
from gateway.acceptance import repository
from gateway.acceptance.repository import Acceptance, Work
from support.databases import FreshDatabase
from support.waiting_messages import waiting_messages


def work(id_: UUID | None = None, *, size: int = 0) -> Work:
    acceptance = Acceptance(id_ or envelope.new_id(), "7", "task", "queued", "echo", datetime.now(UTC))
    command = envelope.command(CancelBatch(batch_id=acceptance.id, owner_id="7" + size * "é"), tenant="7")
    return Work(acceptance, [command], b"{}", f"/v1/tasks/{acceptance.id}")


def commands(*works: Work) -> list[Outgoing]:
    return [message for work in works for message in work.messages]


async def test_commands_of_a_group_wait_in_one_row_and_repeated_work_sends_none(
    fresh_database: FreshDatabase,
) -> None:
    connection = await asyncpg.connect(await fresh_database("gateway"))
    known, large = work(), work(size=20_000)
    assert await repository.accept(connection, [known]) == {known.acceptance.id}
    await connection.execute("DELETE FROM outbox")
    fresh = [work() for _ in range(6)]
    again = work(known.acceptance.id)
    accepted = await repository.accept(connection, [*fresh[:3], again, *fresh[3:], large])
    assert accepted == {one.acceptance.id for one in (*fresh, large)}
    rows = await connection.fetch("SELECT message_type, messages, headers FROM outbox ORDER BY id")
    assert [(row["message_type"], row["messages"]) for row in rows] == [
        ("bundle.v1", 6),
        ("batch.cancel.v1", 1),
    ]
    # By it a relay that does not open bundles knows that this one travels alone.
    assert orjson.loads(rows[0]["headers"])["x-bundle"] is True
    assert await waiting_messages(connection) == commands(*fresh, large)
    await connection.close()
