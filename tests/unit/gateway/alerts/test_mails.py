"""Mails of fired alerts, with an authority that allows all of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from uuid import uuid4

from chassis.broker.envelope import Delivery
from contracts import addresses
from contracts.alerts import AlertFired
from gateway.acceptance.repository import Work
from gateway.alerts.mails import AlertMails

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


class AllowsAll:
    async def holders(self, connection: Any, scope: Any, makers: set[Any]) -> set[Any]:
        return makers


class Collects:
    def __init__(self) -> None:
        self.works: list[Work] = []

    async def accept(self, connection: Any, works: Sequence[Work]) -> Sequence[Work]:
        self.works += works
        return works


async def test_an_address_that_is_refused_by_now_leaves_the_other_mails_alone() -> None:
    collects: Any = Collects()
    allows: Any = AllowsAll()
    connection: Any = None
    addresses.refuse_domains(["corp.example"])
    try:
        event = AlertFired.model_validate(FIRED)
        delivery = Delivery(event, event.firing.id, attempt=1, tenant="7", headers={})
        await AlertMails(collects, allows).promise(connection, [delivery])
    finally:
        addresses.refuse_domains(addresses.REFUSED_DOMAINS)
    assert len(event.notify) == 2
    assert len(collects.works) == 1
