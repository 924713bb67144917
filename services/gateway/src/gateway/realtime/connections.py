"""All open connections of this gateway: one clock for their pings, and one check per key."""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import replace
from typing import Protocol

from chassis import beats, logging
from chassis.errors import DatabaseUnavailable
from gateway.http.principal import Principal
from gateway.realtime.access import Access, RenewPrincipal

log = logging.get(__name__)

TICK_S = 1.0
_CHECK_EVERY_S = 20.0
_CHECKS_AT_ONCE = 8
# Then the loop is left to other work: a tick may end hundreds of subscriptions.
_TICKS_AT_ONCE = 50


class Connection(Protocol):
    """A connection maintained by `Connections`."""

    access: Access | None

    def tick(self, now: float) -> None:
        """Do the work due at `now` (monotonic clock)."""

    def change_access(self, access: Access | None) -> None:
        """Apply the current rights; None closes the connection."""


class Connections:
    """Maintains the open connections; lost rights of a key or user take effect here within 30 seconds."""

    def __init__(self, renew: RenewPrincipal) -> None:
        self._renew = renew
        self._open: set[Connection] = set()

    def __len__(self) -> int:
        return len(self._open)

    def __iter__(self) -> Iterator[Connection]:
        return iter(tuple(self._open))

    def add(self, connection: Connection) -> None:
        """Maintain `connection` from now on."""
        self._open.add(connection)

    def remove(self, connection: Connection) -> None:
        """Forget `connection`."""
        self._open.discard(connection)

    async def keep_time(self) -> None:
        """Call `tick` of each connection every second, until cancelled."""
        while True:
            await beats.following(TICK_S)
            now = time.monotonic()
            for number, connection in enumerate(self):
                if not number % _TICKS_AT_ONCE:
                    await asyncio.sleep(0)
                try:
                    connection.tick(now)
                except Exception as error:  # of one connection: the others have their time, too
                    log.error("connection could not be maintained", exc_info=error)

    async def watch_keys(self) -> None:
        """Check every key in use again, every 20 seconds, until cancelled."""
        while True:
            await asyncio.sleep(_CHECK_EVERY_S)
            await self.check_keys()

    async def check_keys(self) -> None:
        """Check each distinct key once, and apply its current rights to its connections."""
        by_key: dict[str, list[Connection]] = defaultdict(list)
        principals: dict[str, Principal] = {}
        for connection in self:
            if connection.access is not None:
                principal = connection.access.principal
                principals[principal.key_id] = principal
                by_key[principal.key_id].append(connection)
        waiting = list(principals.values())

        async def check() -> None:
            while waiting:
                caller = waiting.pop()
                try:
                    principal = await self._renew(caller)
                except (DatabaseUnavailable, TimeoutError) as error:
                    # The rights are unknown for now: the connections continue until they are known.
                    log.debug("key could not be checked", key_id=caller.key_id, reason=str(error))
                    continue
                except Exception as error:  # of one key: the others are checked in their time, too
                    log.error("key could not be checked", key_id=caller.key_id, exc_info=error)
                    continue
                for connection in by_key[caller.key_id]:
                    # One owner may have thousands, each with hundreds of subscriptions.
                    await asyncio.sleep(0)
                    known = connection.access
                    # It may have a token of another key by now.
                    if known is None or known.principal.key_id != caller.key_id:
                        continue
                    now = None if principal is None else replace(known, principal=principal)
                    try:
                        connection.change_access(now)
                    except Exception as error:  # as above
                        log.error("rights could not be applied", exc_info=error)

        await asyncio.gather(*(check() for _ in range(min(_CHECKS_AT_ONCE, len(waiting)))))
