"""A message that a service could not handle is found, inspected, and replayed or discarded by the gateway."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from native.stack import Stack
from support import broken_messages
from support.waiting import until


@pytest.fixture
async def poison(stack: Stack, api: httpx.AsyncClient) -> dict[str, Any]:
    """Return a message that fits no contract, parked by the email service."""
    return await broken_messages.park(stack.rabbitmq.url, api)


async def test_a_parked_message_is_listed_and_inspected(
    api: httpx.AsyncClient, poison: dict[str, Any]
) -> None:
    assert (poison["reason"], poison["queue"], poison["state"]) == ("undecodable", "email.send", "parked")
    everywhere = (await api.get("/v1/admin/parked")).json()
    assert poison["id"] in [row["id"] for row in everywhere["data"] if row["service"] == "email"]
    assert everywhere["errors"] == []
    whole = (await api.get(f"/v1/admin/parked/email/{poison['id']}")).json()
    assert whole["body"] == {"nonsense": True}


async def test_a_replayed_message_keeps_its_id_and_is_parked_again_while_its_cause_remains(
    api: httpx.AsyncClient, poison: dict[str, Any]
) -> None:
    wanted = {"service": "email", "ids": str(poison["id"]), "rate_per_s": "10"}
    counted = await api.post("/v1/admin/parked/replay", params={**wanted, "dry_run": "true"})
    assert counted.json() == {"matched": 1, "changed": 1, "dry_run": True, "complete": True}
    answer = await api.post("/v1/admin/parked/replay", params=wanted)
    assert answer.status_code == 200
    assert answer.json() == {"matched": 1, "changed": 1, "dry_run": False, "complete": True}

    async def parked_again() -> Any:
        page = (await api.get("/v1/admin/parked", params={"service": "email"})).json()["data"]
        return [
            row for row in page if row["message_id"] == poison["message_id"] and row["id"] != poison["id"]
        ]

    assert await until(parked_again)
    query = {"service": "email", "state": "replayed"}
    replayed = (await api.get("/v1/admin/parked", params=query)).json()["data"]
    record = next(row for row in replayed if row["id"] == poison["id"])
    assert record["decided_by"].startswith("Administrator (user 1")
    assert record["request_id"] == answer.headers["x-request-id"]


async def test_a_discarded_message_stays_readable_and_cannot_be_chosen_again(
    api: httpx.AsyncClient, poison: dict[str, Any]
) -> None:
    wanted = {"service": "email", "ids": str(poison["id"])}
    assert (await api.post("/v1/admin/parked/discard", params=wanted)).json()["changed"] == 1
    whole = (await api.get(f"/v1/admin/parked/email/{poison['id']}")).json()
    assert whole["state"] == "discarded"
    assert (await api.post("/v1/admin/parked/discard", params=wanted)).json()["matched"] == 0


async def test_only_an_administrator_sees_parked_messages(reader: httpx.AsyncClient) -> None:
    assert (await reader.get("/v1/admin/parked")).status_code == 403


async def test_invalid_filters_are_refused(api: httpx.AsyncClient) -> None:
    nothing = await api.post("/v1/admin/parked/discard", params={"service": "email"})
    assert nothing.status_code == 422
    assert (await api.get("/v1/admin/parked/email/999999999")).status_code == 404
    assert (await api.get("/v1/admin/parked/nobody/1")).status_code == 404
    assert (await api.get("/v1/admin/parked", params={"cursor": "5"})).status_code == 422
