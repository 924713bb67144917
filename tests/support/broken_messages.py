"""A message that fits no contract, which the email service parks."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

import aiormq
import httpx
from pamqp.commands import Basic

from support.waiting import until


async def park(rabbitmq_url: str, api: httpx.AsyncClient) -> dict[str, Any]:
    """Publish such a message, and return its row in the list of parked messages."""
    message_id = str(uuid4())
    connection = await aiormq.connect(rabbitmq_url)
    try:
        properties = Basic.Properties(
            message_id=message_id, message_type="email.send.v1", delivery_mode=2, headers={"x-attempt": 1}
        )
        channel = await connection.channel()
        await channel.basic_publish(b'{"nonsense":true}', routing_key="email.send", properties=properties)
    finally:
        await connection.close()

    async def parked() -> Any:
        page = (await api.get("/v1/admin/parked", params={"service": "email"})).json()["data"]
        return next((row for row in page if row["message_id"] == message_id), None)

    row: dict[str, Any] = await until(parked)
    return row
