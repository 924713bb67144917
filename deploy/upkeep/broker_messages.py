"""Reads the messages of queues without removing them, or restores them; runs where the broker is reachable.

The standard input is one JSON line: `{"url", "queues", "messages"}`. Without messages, those of the queues
are printed, one per line; with messages, the queues are emptied and these are published. Of the services'
packages only the AMQP client is needed.
"""

import asyncio
import base64
import json
import sys
from typing import Any

import aiormq


async def main() -> None:
    """Run the command read from the standard input."""
    asked = json.loads(sys.stdin.readline())
    connection = await aiormq.connect(asked["url"])
    channel = await connection.channel(publisher_confirms=True)
    if asked.get("messages") is None:
        for queue in asked["queues"]:
            await show(channel, queue)
    else:
        for queue in asked["queues"]:
            await channel.queue_purge(queue)
        for message in asked["messages"]:
            await publish(channel, message)
    # Messages that were read and not acknowledged return to their queue now.
    await connection.close()


async def show(channel: Any, queue: str) -> None:
    """Print the messages that wait in a queue."""
    while True:
        found = await channel.basic_get(queue, no_ack=False)
        if not isinstance(found.delivery, aiormq.spec.Basic.GetOk):
            return
        properties = {key: value for key, value in found.header.properties if value is not None}
        line = {
            "exchange": found.delivery.exchange,
            "routing_key": found.delivery.routing_key,
            "properties": properties,
            "body": base64.b64encode(found.body).decode(),
        }
        sys.stdout.write(json.dumps(line, default=str) + "\n")


async def publish(channel: Any, message: dict[str, Any]) -> None:
    """Publish a message as it was published originally, so that it is routed to the same queue."""
    kept = (
        "content_type",
        "headers",
        "delivery_mode",
        "priority",
        "correlation_id",
        "message_id",
        "message_type",
    )
    properties = {key: value for key, value in message["properties"].items() if key in kept}
    await channel.basic_publish(
        base64.b64decode(message["body"]),
        exchange=message["exchange"],
        routing_key=message["routing_key"],
        properties=aiormq.spec.Basic.Properties(**properties),
    )


if __name__ == "__main__":
    asyncio.run(main())
