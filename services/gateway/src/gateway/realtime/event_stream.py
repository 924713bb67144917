"""Server-sent events of channels: the newest publication of each, as fast as the reader takes them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from typing import Any

import orjson

from gateway.realtime.connection_limit import ConnectionLimit
from gateway.realtime.hub import Hub
from gateway.realtime.positions import Handover, Position
from gateway.realtime.publications import Publication

_SILENCE_S = 15.0
# What is looked at may have changed between the first look and the first push that was heard.
_FIRST_SILENCE_S = 0.5
_COMMENT = b": still here\n\n"

LookAgain = Callable[[], Awaitable[Sequence[Publication]]]


class _Newest:
    """The newest publication of each channel that was not sent yet."""

    def __init__(self, first: Sequence[Publication]) -> None:
        self._handovers: dict[str, Handover[Publication]] = {}
        self._waiting: dict[str, Publication] = {}
        self._is_filled = asyncio.Event()
        for publication in first:
            handover: Handover[Publication] = Handover(is_ordered=False)
            self._handovers[publication.channel] = handover
            handover.begin(publication.position)

    def offer(self, publication: Publication) -> None:
        """Take a publication if it is newer; it replaces one that waits."""
        if publication.is_state or self._handovers[publication.channel].offer(publication):
            self._waiting[publication.channel] = publication
            self._is_filled.set()

    async def take(self, silence_s: float) -> list[Publication]:
        """Wait for publications and return them; nothing after `silence_s` seconds."""
        try:
            await asyncio.wait_for(self._is_filled.wait(), silence_s)
        except TimeoutError:
            return []
        self._is_filled.clear()
        taken, self._waiting = list(self._waiting.values()), {}
        return taken


async def events(
    hub: Hub,
    first: Sequence[Publication],
    *,
    name: str,
    owner: str,
    limit: ConnectionLimit,
    last_event_id: str | None = None,
    look_again: LookAgain | None = None,
    is_last: Callable[[Any], bool] = lambda _: False,
) -> AsyncIterator[bytes]:
    """Yield the events of the channels of `first`, which is their state now, until one of them is the last.

    The id of an event is its position, `<epoch>:<offset>`; what `last_event_id` names is not sent again.
    Pushes are transient: after a silence `look_again` reads the state that is stored.
    """
    async with AsyncExitStack() as stack:
        stack.callback(limit.take(owner, "sse"))
        newest = _Newest(first)
        for publication in first:
            stack.callback(hub.listen(publication.channel, newest.offer))
        pending, silence_s = list(first), _FIRST_SILENCE_S
        while True:
            for publication in pending:
                if event_id(publication.position) != last_event_id:
                    yield _encoded(name, publication)
            if any(is_last(publication.data) for publication in pending):
                return
            last_event_id = None
            pending = await newest.take(silence_s)
            if not pending:
                yield _COMMENT
                pending = list(await look_again()) if look_again else []
            silence_s = _SILENCE_S


def event_id(position: Position) -> str:
    """Return the id of an event at `position`."""
    return f"{position.epoch}:{position.offset}"


def _encoded(name: str, publication: Publication) -> bytes:
    data = orjson.dumps(publication.data, option=orjson.OPT_UTC_Z)
    return f"event: {name}\nid: {event_id(publication.position)}\ndata: ".encode() + data + b"\n\n"
