"""Announcements of one gateway to all others, over the live exchange."""

from __future__ import annotations

from chassis import logging
from chassis.broker.envelope import Outgoing, new_id, stamp
from chassis.broker.publisher import Publisher
from chassis.errors import Unavailable
from contracts.message import LiveMessage
from contracts.topology import LIVE

log = logging.get(__name__)


async def announce(publisher: Publisher, news: LiveMessage) -> bool:
    """Publish `news` without a guarantee; return whether the broker was available."""
    outgoing = Outgoing(
        exchange=LIVE,
        routing_key=news.routing_key,
        body=news.model_dump_json(exclude_unset=True).encode(),
        message_type=news.message_type,
        message_id=str(new_id()),
        headers=stamp(),
        persistent=False,
    )
    try:
        await publisher.send(outgoing)
    except Unavailable as error:
        log.debug("other gateways could not be notified", reason=error.detail)
        return False
    return True
