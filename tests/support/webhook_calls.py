"""Calls of the tests of webhooks: make webhooks, let something happen, and look at the deliveries."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import httpx

from chassis.broker import envelope
from chassis.broker.envelope import Outgoing, new_id
from contracts.emails import EmailStatus, EmailStatusChanged
from support.gateway_stack import RunningGateway
from support.waiting import until

READS_MAIL = ("webhooks:write", "emails:read")


async def created(client: httpx.AsyncClient, url: str, *events: str, **headers: str) -> str:
    body = {"url": url, "events": events or ["email.delivered"]}
    answer = await client.post("/v1/webhooks", json=body, headers=headers)
    assert answer.status_code == 201, answer.text
    assert answer.headers["location"] == f"/v1/webhooks/{answer.json()['id']}"
    return str(answer.json()["id"])


async def admin_id(listener: RunningGateway) -> str:
    return str((await listener.api.get("/v1/me")).json()["user"]["id"])


def mail(owner_id: str, status: EmailStatus = "delivered") -> Outgoing:
    now = datetime.now(UTC)
    change = EmailStatusChanged(email_id=new_id(), owner_id=owner_id, status=status, at=now)
    return envelope.event(change, message_id=new_id())


async def due_now(listener: RunningGateway) -> None:
    """Make every wait for a next attempt end."""
    await listener.database.execute(
        "UPDATE webhook_deliveries SET next_at = now() WHERE status = 'pending' AND next_at > now()"
    )
    listener.gateway.resources.deliverer.wake()


async def deliveries(client: httpx.AsyncClient, webhook_id: str, **query: str) -> list[dict[str, Any]]:
    answer = await client.get(f"/v1/webhooks/{webhook_id}/deliveries", params=query)
    assert answer.status_code == 200, answer.text
    found: list[dict[str, Any]] = answer.json()["data"]
    return found


async def detail(client: httpx.AsyncClient, webhook_id: str, delivery_id: str) -> dict[str, Any]:
    answer = await client.get(f"/v1/webhooks/{webhook_id}/deliveries/{delivery_id}")
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


async def until_status(client: httpx.AsyncClient, webhook_id: str, delivery_id: str, status: str) -> None:
    async def is_there() -> bool:
        return bool((await detail(client, webhook_id, delivery_id))["status"] == status)

    await until(is_there, what=lambda: f"delivery {delivery_id} is {status}")
