"""The silence of a feed: detected once, and published to the subscribers of all its channels."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from chassis import beats, logging
from gateway.publishing.hub import Hub
from gateway.publishing.publications import Publication

log = logging.get(__name__)

_LOOK_EVERY_S = 1.0


class Silence:
    """Tracks when a feed was last active, and publishes the state of its channels once it has fallen silent.

    `prefix` is that of the feed's channels; `state` returns the publication for the channel of a symbol, or
    None if nothing has arrived for it.
    """

    def __init__(
        self, hub: Hub, *, prefix: str, after_s: float, state: Callable[[str], Publication | None]
    ) -> None:
        self.after_s = after_s
        self._hub = hub
        self._prefix = prefix
        self._state = state
        self._heard_at = time.monotonic()
        self._is_told = False

    def end(self, at: float | None = None) -> None:
        """Record that the feed was active, now or `at` a time of the monotonic clock."""
        self._heard_at = time.monotonic() if at is None else at
        self._is_told = False

    def lasts(self) -> bool:
        """Return whether nothing has arrived for `after_s`."""
        return time.monotonic() - self._heard_at > self.after_s

    async def watch(self) -> None:
        """Notify subscribers once each time the feed falls silent, until cancelled."""
        while True:
            await beats.following(_LOOK_EVERY_S)
            await self.look()

    async def look(self) -> None:
        """Publish the state of every channel with listeners if the feed has just fallen silent.

        Between two channels, other work of the loop goes on.
        """
        was_told, self._is_told = self._is_told, self.lasts()
        if was_told or not self._is_told:
            return
        for channel in self._hub.channels(self._prefix):
            # The feed may have resumed meanwhile.
            if not self.lasts():
                return
            try:
                publication = self._state(channel.removeprefix(self._prefix))
            except Exception as error:  # of one channel: the others are as silent
                log.error("state could not be published", channel=channel, exc_info=error)
                continue
            if publication is not None:
                self._hub.publish(publication)
            await asyncio.sleep(0)
