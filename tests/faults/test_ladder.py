"""A message that fails at every attempt climbs all rungs, and is parked with its whole history."""

from __future__ import annotations

from typing import Any

import asyncpg
import pytest

from contracts.topology import EMAIL, ladder, parked_queue
from faults import harm
from faults.rig import Rig
from support.waiting import until

_MAIL = {"to": ["ladder@example.com"], "subject": "s", "text": "t"}
_TASK = {"operation": "echo", "payload": "replayed"}


@pytest.mark.timeout(120)
async def test_a_message_that_fails_on_every_rung_is_parked_and_its_neighbours_are_not(rig: Rig) -> None:
    task = {"operation": "echo", "payload": "neighbour"}
    async with (
        rig.client() as client,
        harm.short_ladder(rig, delay_ms=300),
        harm.broken_table(rig, "emailer", "recipients"),
    ):
        accepted = [await client.post("/v1/emails", json=_MAIL) for _ in range(3)]
        neighbour = (await client.post("/v1/tasks", json=task)).headers["location"]
        rows = await until(lambda: _parked(rig), timeout_s=60, what=lambda: "three parked mails")
        assert (await client.get(neighbour)).json()["status"] == "completed"
    assert {str(row["message_id"]) for row in rows} == {answer.json()["id"] for answer in accepted}
    assert {row["attempts"] for row in rows} == {len(ladder(EMAIL)) + 1}
    assert {row["reason"] for row in rows} == {"attempts-exhausted"}
    assert all("recipients" in row["first_error"] and "recipients" in row["last_error"] for row in rows)


@pytest.mark.timeout(120)
@pytest.mark.parametrize(
    ("service", "path", "body", "broken", "end"),
    [
        ("email", "/v1/emails", _MAIL, ("emailer", "recipients"), "delivered"),
        ("batch-processor", "/v1/tasks", _TASK, ("batch_processor", "chunks"), "completed"),
    ],
    ids=["mail", "task"],
)
async def test_parked_work_says_so_and_is_done_once_it_is_replayed(
    rig: Rig, service: str, path: str, body: Any, broken: tuple[str, str], end: str
) -> None:
    async with rig.client() as client:

        async def says(status: str) -> Any:
            document = (await client.get(location)).json()
            return document if document["status"] == status else None

        async with harm.short_ladder(rig, delay_ms=100), harm.broken_table(rig, *broken):
            location = (await client.post(path, json=body)).headers["location"]
            await until(lambda: _is_parked(rig, service), timeout_s=60, what=lambda: "a parked message")
        parked = await until(lambda: says("parked"), what=lambda: "parked work")
        assert parked["reason"] == "attempts-exhausted"
        wanted = {"service": service, "reason": "attempts-exhausted"}
        replayed = await client.post("/v1/admin/parked/replay", params=wanted)
        assert replayed.json()["changed"] == 1
        document = await until(lambda: says(end), timeout_s=60, what=lambda: end)
        assert "reason" not in document


async def _is_parked(rig: Rig, service: str) -> bool:
    return (await rig.parked()).get(parked_queue(service)) == 1


async def _parked(rig: Rig) -> list[Any]:
    connection = await asyncpg.connect(rig.stack.postgres.dsn("emailer"))
    try:
        rows = await connection.fetch("SELECT * FROM parked WHERE queue = 'email.send'")
    finally:
        await connection.close()
    return rows if len(rows) == 3 else []
