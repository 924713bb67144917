"""Every replica listens to the ticks of the leader, so that it can answer from memory."""

from __future__ import annotations

from aiormq.abc import DeliveredMessage
from pydantic import ValidationError

from chassis import logging, redaction
from chassis.broker.rabbitmq import Link
from contracts.stocks import QuotesTicked
from contracts.topology import LIVE
from stock_data.replay.board import Board
from stock_data.replay.feed import Feed

log = logging.get(__name__)

# A replica that lags needs the newest ticks only: the broker drops the oldest.
_QUEUE_LENGTH = 100


class Follower:
    """Puts the live ticks of other replicas on the board, and ignores this process's own."""

    def __init__(self, board: Board, *, feed: Feed) -> None:
        self._board = board
        self._feed = feed

    async def attach(self, link: Link) -> None:
        """Start listening over a fresh connection."""
        channel = await link.channel(confirms=False)
        declared = await channel.queue_declare(
            "", exclusive=True, auto_delete=True, arguments={"x-max-length": _QUEUE_LENGTH}
        )
        queue = declared.queue or ""
        await channel.queue_bind(queue, LIVE, routing_key=QuotesTicked.routing_key)
        channel.on_consumer_cancel_callbacks.add(lambda _: link.interrupt())
        await channel.basic_consume(queue, self._take, no_ack=True)

    async def _take(self, message: DeliveredMessage) -> None:
        # All quotes of a message have one epoch. The text is searched, because parsing what this process
        # has just sent would cost as much as sending it.
        if self._feed.epoch is not None and f'"epoch":"{self._feed.epoch}"'.encode() in message.body:
            return
        try:
            ticked = QuotesTicked.model_validate_json(message.body)
        except ValidationError as error:
            log.warning("tick cannot be decoded", reason=redaction.safe_message(error)[:300])
            return
        self._board.put(ticked.quotes)
