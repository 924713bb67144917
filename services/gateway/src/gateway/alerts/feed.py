"""The channel `alerts`: the firings of each owner, in their order, on every gateway."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson

from chassis import logging
from chassis.broker.rpc import RpcClient
from chassis.deadlines import Deadline
from chassis.errors import ServiceError
from contracts.alerts import Firings, ListFirings
from gateway.http.principal import Principal
from gateway.publishing.hub import Hub
from gateway.publishing.positions import ChannelPosition
from gateway.publishing.publications import Publication

log = logging.get(__name__)

CHANNEL = "alerts"
MOST_FIRINGS = 300
# Of missed firings, which are published a page at a time: fewer than may wait for the listeners of an owner.
_CATCH_UP = 150
# Pages that are read at once. What is left comes with the next look.
_MOST_PAGES = 10
_ASK_S = 5.0
_CATCH_UP_EVERY_S = 5.0
_FILLS_AT_ONCE = 8


@dataclass
class _PublishedFirings:
    """The position up to which an owner's firings were published here, and whether newer ones may exist."""

    at: ChannelPosition
    is_behind: bool = False
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)


class AlertFeed:
    """Publishes the firings of each owner with a listener here: every offset once, in order.

    Events may arrive late, twice or not at all: gaps, including those of an outage of the broker, are filled
    from stock-data, which stores the firings.
    """

    def __init__(self, hub: Hub, rpc: RpcClient) -> None:
        self._hub = hub
        self._rpc = rpc
        self._shown: dict[str, _PublishedFirings] = {}

    async def follow(self, principal: Principal, *, at_least: int = 0) -> ChannelPosition:
        """Begin to publish the caller's firings here; return the position up to which they were published."""
        owner_id = principal.owner_id
        shown = self._shown.get(owner_id)
        if shown is None:
            found = await self._ask(ListFirings(owner_id=owner_id, limit=0))
            shown = self._shown.setdefault(
                owner_id, _PublishedFirings(ChannelPosition(found.epoch, found.offset))
            )
        if shown.at.offset < at_least:
            try:
                await self._fill(owner_id, shown, at_least=at_least)
            except BaseException:
                # Others listen, too, also when this caller has left.
                shown.is_behind = True
                raise
        return shown.at

    async def read(
        self,
        principal: Principal,
        *,
        after: int | None = None,
        before: int | None = None,
        newest_first: bool = False,
        limit: int = MOST_FIRINGS,
    ) -> tuple[ChannelPosition, list[Publication]]:
        """Return firings of the caller between two offsets, and the position of the newest."""
        question = ListFirings(
            owner_id=principal.owner_id, after=after, before=before, newest_first=newest_first, limit=limit
        )
        found = await self._ask(question)
        return ChannelPosition(found.epoch, found.offset), _publications(found)

    async def heard(self, body: bytes) -> None:
        """Handle the event that an alert has fired."""
        fired = orjson.loads(body)
        owner_id, firing = fired["owner_id"], fired["firing"]
        shown = self._shown.get(owner_id)
        if shown is None:
            return
        if not self._hub.has_listeners(topic(owner_id)):
            del self._shown[owner_id]
            return
        at = ChannelPosition(fired["epoch"], firing["offset"])
        if shown.at.epoch == at.epoch and at.offset == shown.at.offset + 1 and not shown.lock.locked():
            self._publish(owner_id, shown, _publication(at.epoch, firing))
        elif shown.at.epoch != at.epoch or at.offset > shown.at.offset:
            await self._try_to_fill(owner_id, shown)

    def note_interruption(self) -> None:
        """Note that events may have been missed during an interruption."""
        for shown in self._shown.values():
            shown.is_behind = True

    async def catch_up(self) -> None:
        """Publish missed firings as soon as they can be read, until cancelled."""
        while True:
            await asyncio.sleep(_CATCH_UP_EVERY_S)
            await self.look()

    async def look(self) -> None:
        """Publish missed firings once, and forget the owners without listeners."""
        behind: list[tuple[str, _PublishedFirings]] = []
        for owner_id, shown in list(self._shown.items()):
            if not self._hub.has_listeners(topic(owner_id)):
                self._shown.pop(owner_id, None)
            elif shown.is_behind and not shown.lock.locked():
                # Whoever has the lock reads what is missing.
                behind.append((owner_id, shown))

        async def fill() -> None:
            while behind:
                await self._try_to_fill(*behind.pop())

        # One that takes long does not delay the others.
        await asyncio.gather(*(fill() for _ in range(min(_FILLS_AT_ONCE, len(behind)))))

    async def _try_to_fill(self, owner_id: str, shown: _PublishedFirings) -> None:
        try:
            await self._fill(owner_id, shown)
        except ServiceError as error:
            shown.is_behind = True
            log.warning("alert firings could not be read", reason=error.detail)
        except Exception as error:  # of one owner: the firings of others are read, too
            shown.is_behind = True
            log.error("alert firings could not be published", owner_id=owner_id, exc_info=error)

    async def _fill(self, owner_id: str, shown: _PublishedFirings, *, at_least: int = 0) -> None:
        """Publish the firings after the last one that was published here, up to the offset `at_least`.

        Those after it too, while the listeners have taken what was published before. Read a bounded number of
        pages: a later look goes on.
        """
        async with shown.lock:
            # Cleared first: a firing that is missed while this reads sets it again.
            shown.is_behind = False
            for _ in range(_MOST_PAGES):
                if shown.at.offset >= at_least and self._hub.is_behind(topic(owner_id)):
                    break
                page = ListFirings(owner_id=owner_id, after=shown.at.offset, limit=_CATCH_UP)
                found = await self._ask(page)
                if found.epoch != shown.at.epoch:
                    # The owner's first firing, or a new database: offsets start again.
                    shown.at = ChannelPosition(found.epoch, 0)
                    continue
                for publication in _publications(found):
                    self._publish(owner_id, shown, publication)
                    # There may be very many listeners.
                    await asyncio.sleep(0)
                if len(found.data) < _CATCH_UP:
                    return
            shown.is_behind = True

    def _publish(self, owner_id: str, shown: _PublishedFirings, publication: Publication) -> None:
        shown.at = publication.position
        self._hub.publish(publication, topic=topic(owner_id), is_ordered=True)

    async def _ask(self, question: ListFirings) -> Firings:
        return await self._rpc.call(question, Firings, Deadline.after(_ASK_S))


def topic(owner_id: str) -> str:
    """Return the hub's name of an owner's channel, which every owner knows as `alerts`."""
    return f"{CHANNEL}:{owner_id}"


def _publications(found: Firings) -> list[Publication]:
    return [_publication(found.epoch, firing.model_dump(mode="json")) for firing in found.data]


def _publication(epoch: str, firing: Mapping[str, Any]) -> Publication:
    return Publication(CHANNEL, ChannelPosition(epoch, firing["offset"]), firing)
