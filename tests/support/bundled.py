"""Messages that a test takes from a queue, those of a bundle each by itself."""

from __future__ import annotations

from aiormq.abc import DeliveredMessage

from chassis.broker import bundles
from chassis.broker.bundles import Part


def messages_in(message: DeliveredMessage) -> list[Part]:
    """Return the message, or the parts of the bundle; nothing when the queue was empty."""
    if message.header is None or message.delivery_tag is None:
        return []
    properties = message.header.properties
    whole = Part(
        properties.message_type or "", properties.message_id or "", properties.headers or {}, message.body
    )
    return bundles.unwrap(whole.body) if whole.message_type == bundles.MESSAGE_TYPE else [whole]
