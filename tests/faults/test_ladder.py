"""A message that fails at every try climbs all rungs, and is parked with its whole story."""

from __future__ import annotations

from typing import Any

import asyncpg
import pytest

from contracts.topology import LADDER
from faults import harm
from faults.rig import Rig
from waiting import until


@pytest.mark.timeout(120)
async def test_what_fails_on_every_rung_is_parked_and_neighbours_are_not(rig: Rig) -> None:
    mail = {"to": ["ladder@example.com"], "subject": "s", "text": "t"}
    task = {"operation": "echo", "payload": "neighbour"}
    async with (
        rig.client() as client,
        harm.short_ladder(rig, delay_ms=300),
        harm.broken_table(rig, "emailer", "recipients"),
    ):
        accepted = [await client.post("/v1/emails", json=mail) for _ in range(3)]
        neighbour = (await client.post("/v1/tasks", json=task)).headers["location"]
        rows = await until(lambda: _parked(rig), timeout_s=60, what=lambda: "three parked mails")
        assert (await client.get(neighbour)).json()["status"] == "completed"
    assert {str(row["message_id"]) for row in rows} == {answer.json()["id"] for answer in accepted}
    assert {row["attempts"] for row in rows} == {len(LADDER) + 1}
    assert {row["reason"] for row in rows} == {"attempts-exhausted"}
    assert all("recipients" in row["first_error"] and "recipients" in row["last_error"] for row in rows)


async def _parked(rig: Rig) -> list[Any]:
    connection = await asyncpg.connect(rig.stack.postgres.dsn("emailer"))
    try:
        rows = await connection.fetch("SELECT * FROM parked WHERE queue = 'email.send'")
    finally:
        await connection.close()
    return rows if len(rows) == 3 else []
