"""Publishing of live messages: without confirms, and dropped when they cannot be sent now."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from chassis import logging, metrics, redaction
from chassis.broker import envelope
from chassis.broker.envelope import Outgoing
from chassis.errors import Unavailable
from contracts import topology
from contracts.message import Message

log = logging.get(__name__)

Send = Callable[[Outgoing], Awaitable[None]]

TIMEOUT_S = 1.0


class Outlet:
    """Publishes one kind of live message, which would be useless later."""

    def __init__(self, send: Send, *, routing_key: str) -> None:
        self._send = send
        self._routing_key = routing_key
        self._is_dropping = False

    async def publish(self, message: Message) -> bool:
        """Publish without waiting for a confirm; return whether the message was sent."""
        try:
            async with asyncio.timeout(TIMEOUT_S):
                await self._send(envelope.live(message, self._routing_key))
        except (Unavailable, TimeoutError) as error:
            metrics.PUBLISHED.labels(topology.LIVE, "dropped").inc()
            if not self._is_dropping:
                reason = redaction.safe_message(error)
                log.warning("live messages are dropped", routing_key=self._routing_key, reason=reason)
            self._is_dropping = True
            return False
        self._is_dropping = False
        return True
