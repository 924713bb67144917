"""Publishing many messages with one write, and one wait for all their confirms."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from aiormq.abc import ChannelFrame
from aiormq.channel import Channel
from pamqp import frame
from pamqp.body import ContentBody
from pamqp.commands import Basic
from pamqp.header import ContentHeader

from chassis import logging, redaction
from chassis.broker.envelope import Outgoing

log = logging.get(__name__)

# About the bytes of one write: a burst of large messages is not copied as a whole.
_WRITE_BYTES = 128 * 1024


class Burst:
    """Messages that are published over one channel with confirms, and the broker's answer to each.

    `Channel.basic_publish` writes one message, and waits until it is written before the next may begin. This
    class does the same bookkeeping for each message, under the same lock.
    """

    def __init__(self, messages: Sequence[Outgoing]) -> None:
        self._messages = messages
        self._words: list[asyncio.Future[object] | Exception | None] = [None] * len(messages)

    async def publish(self, channel: Channel) -> None:
        """Write all messages that can be encoded, and wait until the broker has answered each."""
        async with channel.lock:
            written: list[tuple[int, bytes]] = []
            size = 0
            for index, message in enumerate(self._messages):
                try:
                    written.append((index, _encode(channel, message)))
                except Exception as error:  # whatever is wrong with it, the others are published
                    self._words[index] = error
                    continue
                size += len(written[-1][1])
                if size >= _WRITE_BYTES:
                    await self._write(channel, written)
                    written, size = [], 0
            if written:
                await self._write(channel, written)
        waiting = [word for word in self._words if isinstance(word, asyncio.Future)]
        if waiting:
            await asyncio.wait(waiting)

    def errors(self, otherwise: Exception, *, unwritten: Exception) -> list[Exception | None]:
        """Return the error of each message, or None when it is confirmed.

        `otherwise` is the error of those that the broker has not answered, `unwritten` that of those that
        were never sent.
        """
        return [unwritten if word is None else _error(word, otherwise) for word in self._words]

    async def _write(self, channel: Channel, written: Sequence[tuple[int, bytes]]) -> None:
        before = channel.delivery_tag
        drained = channel.create_future()
        octets = b"".join(octets for _, octets in written)
        for index, _ in written:
            self._words[index] = _expect(channel, self._messages[index].message_id)
        try:
            await channel.write_queue.put(
                ChannelFrame(payload=octets, should_close=False, drain_future=drained)
            )
        except BaseException:
            # The broker has not seen these messages, so its count of delivery tags is what it was before.
            for tag in range(before + 1, channel.delivery_tag + 1):
                channel.confirmations.pop(tag).cancel()
            channel.delivery_tag = before
            drained.cancel()
            raise
        await drained


def _expect(channel: Channel, message_id: str) -> asyncio.Future[object]:
    """Return a future with the broker's answer to the next message of the channel."""
    channel.delivery_tag += 1
    tag = channel.delivery_tag
    word: asyncio.Future[object] = channel.create_future()
    channel.confirmations[tag] = word
    channel.message_id_delivery_tag[message_id] = tag

    def forget(_: object) -> None:
        if channel.message_id_delivery_tag.get(message_id) == tag:
            del channel.message_id_delivery_tag[message_id]

    word.add_done_callback(forget)
    return word


async def hand_over(channel: Channel, messages: Sequence[Outgoing]) -> list[Outgoing]:
    """Write transient messages without waiting for confirms; return those that were written.

    A message that cannot be encoded is dropped; the others are written.
    """
    written: list[Outgoing] = []
    octets = bytearray()
    async with channel.lock:
        for message in messages:
            try:
                octets += _encode(channel, message, mandatory=False)
            except Exception as error:  # whatever is wrong with it, the others are written
                reason = redaction.safe_message(error)
                log.warning("message cannot be encoded", type=message.message_type, reason=reason)
                continue
            written.append(message)
            if len(octets) >= _WRITE_BYTES:
                await _put(channel, bytes(octets))
                octets.clear()
        if octets:
            await _put(channel, bytes(octets))
    return written


async def _put(channel: Channel, octets: bytes) -> None:
    drained = channel.create_future()
    await channel.write_queue.put(ChannelFrame(payload=octets, should_close=False, drain_future=drained))
    await drained


def _encode(channel: Channel, message: Outgoing, *, mandatory: bool = True) -> bytes:
    """Return the frames of a message as octets."""
    size, most = len(message.body), channel.max_content_size
    publish = Basic.Publish(exchange=message.exchange, routing_key=message.routing_key, mandatory=mandatory)
    header = ContentHeader(properties=message.properties(), body_size=size)
    octets = frame.marshal(publish, channel.number) + frame.marshal(header, channel.number)
    for start in range(0, size, most):
        octets += frame.marshal(ContentBody(message.body[start : start + most]), channel.number)
    return octets


def _error(word: asyncio.Future[object] | Exception, otherwise: Exception) -> Exception | None:
    if isinstance(word, Exception):
        return word
    if not word.done() or word.cancelled():
        return otherwise
    error = word.exception()
    if error is None:
        return None if isinstance(word.result(), Basic.Ack) else otherwise
    # A channel that closes may reject with CancelledError, which is no Exception.
    return error if isinstance(error, Exception) else ConnectionError("the channel was closed")
