"""Mails of fired alerts, whose owner may send mail."""

from __future__ import annotations

from typing import Any
from uuid import UUID, uuid4

from chassis.broker.envelope import Delivery
from contracts import addresses
from contracts.alerts import AlertFired
from gateway.alerts import mails
from support.doubles.statements import AnsweredConnection

FIRED = {
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
