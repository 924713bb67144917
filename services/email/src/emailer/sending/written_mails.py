"""Mails that were written for display, kept for a while for the requests that follow."""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from uuid import UUID

KEPT_S = 30.0
MOST_BYTES = 32 * 1024 * 1024
MOST_BYTES_OF_OWNER = 8 * 1024 * 1024
MOST_OF_OWNER = 4


class WrittenMails:
    """Keeps each mail for half a minute after it was last asked for.

    Beyond the bytes of its owner, or its number of mails, that owner's go first; beyond those of all owners,
    whichever was asked for the longest ago. The newest one stays however large it is.
    """

    def __init__(self) -> None:
        # What was asked for the longest ago comes first, and ends first.
        self._kept: OrderedDict[tuple[str, UUID], tuple[float, bytes]] = OrderedDict()
        self._bytes = 0

    @property
    def kept_bytes(self) -> int:
        """The bytes that are kept now."""
        return self._bytes

    def find(self, owner_id: str, email_id: UUID) -> bytes | None:
        """Return a mail that was kept, and keep it for another while; None when it is not there."""
        found = self._kept.get((owner_id, email_id))
        if found is None:
            return None
        self.keep(owner_id, email_id, found[1])
        return found[1]

    def keep(self, owner_id: str, email_id: UUID, content: bytes) -> None:
        """Keep a mail of the owner."""
        self._drop((owner_id, email_id))
        self._kept[owner_id, email_id] = time.monotonic() + KEPT_S, content
        self._bytes += len(content)
        own = [key for key in self._kept if key[0] == owner_id]
        of_owner = sum(len(self._kept[key][1]) for key in own)
        while len(own) > 1 and (len(own) > MOST_OF_OWNER or of_owner > MOST_BYTES_OF_OWNER):
            of_owner -= len(self._kept[own[0]][1])
            self._drop(own.pop(0))
        while len(self._kept) > 1 and self._bytes > MOST_BYTES:
            self._drop(next(iter(self._kept)))
        asyncio.get_running_loop().call_later(KEPT_S + 1, self._drop_old)

    def _drop_old(self) -> None:
        now = time.monotonic()
        while self._kept and next(iter(self._kept.values()))[0] < now:
            self._drop(next(iter(self._kept)))

    def _drop(self, key: tuple[str, UUID]) -> None:
        _, content = self._kept.pop(key, (0.0, b""))
        self._bytes -= len(content)
