"""Mails of fired alerts, whose owner may send mail."""

from __future__ import annotations

import asyncio
from typing import Any
from uuid import UUID, uuid4

from chassis.broker.envelope import Delivery
from contracts import addresses
from contracts.alerts import AlertFired
from gateway.alerts import mails
from support.doubles.statements import AnsweredConnection
from support.turns_of_the_loop import turns_of_the_loop

FIRED: dict[str, Any] = {
    "owner_id": "7",
    "made_by": "key",
    "epoch": "e",
    "firing": {
        "id": str(uuid4()),
        "offset": 1,
        "alert_id": str(uuid4()),
        "symbol": "A",
        "condition": {"above": 9},
        "price": 9.4,
        "as_of": "2026-01-05T15:00:00Z",
        "source": "double",
        "simulated": False,
    },
    "notify": [{"email": "ann@corp.example"}, {"email": "bob@example.com"}],
}


class AlertDatabase:
    """A database with the key that made the alert; notes the ids of accepted work."""

    def __init__(self) -> None:
        self.accepted: list[UUID] = []

    async def find_usable_keys(self, key_ids: list[str]) -> list[dict[str, Any]]:
        user = {"user_id": 7, "user_name": "Ann", "role": "member", "scopes": ["emails:send"]}
        digests = {"digest": b"", "previous_digest": None, "previous_until": None}
        return [{"id": key_id, "expires_at": None, **user, **digests} for key_id in key_ids]

    async def accept(self, ids: list[UUID], *_: Any) -> list[dict[str, Any]]:
        self.accepted += ids
        return [{"id": id_} for id_ in ids]


async def test_an_address_that_is_refused_by_now_leaves_the_other_mails_alone() -> None:
    database = AlertDatabase()
    connection: Any = AnsweredConnection(database)
    addresses.refuse_domains(["corp.example"])
    try:
        event = AlertFired.model_validate(FIRED)
        delivery = Delivery(event, event.firing.id, attempt=1, tenant="7", headers={})
        await mails.promise(connection, [delivery])
    finally:
        addresses.refuse_domains(addresses.REFUSED_DOMAINS)
    assert len(event.notify) == 2
    assert len(database.accepted) == 1


async def test_the_loop_is_not_held_up_by_all_the_alerts_that_fire_with_one_tick() -> None:
    async def longest_turn(alerts: int) -> int:
        firings = [{**FIRED["firing"], "id": str(uuid4())} for _ in range(alerts)]
        events = [AlertFired.model_validate({**FIRED, "firing": firing}) for firing in firings]
        given = [Delivery(event, event.firing.id, attempt=1, tenant="7", headers={}) for event in events]
        connection: Any = AnsweredConnection(AlertDatabase())
        async with turns_of_the_loop() as most_calls:
            await mails.promise(connection, given)
            await asyncio.sleep(0)
        return most_calls()

    # Without a pause it takes twice as many calls; what is left is the statement that accepts all of them.
    assert await longest_turn(50) < 6_000
