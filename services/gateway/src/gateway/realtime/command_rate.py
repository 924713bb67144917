"""The limits on the commands of one connection, and of all connections of an owner."""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable

from chassis import metrics
from gateway.realtime.codes import CloseCode, CloseConnection, CommandError, ErrorCode

_COMMANDS_PER_S = 50.0
# A client that reconnects subscribes to all its channels at once.
_BURST = 400.0
# Reading a command takes time that grows with its size: a longer one counts as several.
_BYTES_OF_A_COMMAND = 4 * 1024
# An owner's clients come back together when a gateway has restarted, and subscribe to all that it may have.
OWNER_BURST = 25_000


class OwnerRates:
    """Allows each owner `per_s` commands a second over all its connections, and `burst` at once.

    A refused command costs the owner nothing: one that sends too many still has its full rate. After one, a
    connection is not read for `pause_s`, at most every other time, because refusals take time from others.
    """

    def __init__(
        self,
        per_s: float,
        *,
        burst: int = OWNER_BURST,
        pause_s: float = 1.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.per_s = per_s
        self.pause_s = pause_s
        self.clock = clock
        self._burst = burst
        # What each owner has left and when that was counted, the owner of the last command at the end.
        self._left: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._left)

    def take(self, owner: str, weight: int) -> bool:
        """Return whether `owner` may have a command of this weight now, and count it if so."""
        now = self.clock()
        left, at = self._left.pop(owner, (self._burst, now))
        left = min(self._burst, left + (now - at) * self.per_s)
        fits = weight <= left
        self._left[owner] = (left - weight if fits else left, now)
        # Whoever has asked for nothing for so long has everything left, as somebody unknown has.
        while next(iter(self._left.values()))[1] < now - self._burst / self.per_s:
            self._left.popitem(last=False)
        return fits


class CommandRate:
    """Allows `_BURST` commands at once and `_COMMANDS_PER_S` per second on average; long ones count more.

    Commands over the rate are refused and can be sent again later; a client that continues is disconnected.
    Those of an `owner` count in its own rate, too, beyond which they are refused and the connection pauses.
    """

    __slots__ = ("_at", "_left", "_owners", "_pauses_from", "is_over", "owner")

    def __init__(self, owners: OwnerRates) -> None:
        self._owners = owners
        self._at = self._pauses_from = owners.clock()
        self._left = _BURST
        self.owner = ""
        self.is_over = False

    def count(self, size: int) -> None:
        """Count a command of `size` bytes. Raise `CommandError` over the rate, later `CloseConnection`."""
        now = self._owners.clock()
        weight = 1 + size // _BYTES_OF_A_COMMAND
        self._left = min(_BURST, self._left + (now - self._at) * _COMMANDS_PER_S) - weight
        self._at = now
        if self._left < -_BURST:
            raise CloseConnection(CloseCode.TOO_MANY_REQUESTS)
        if self._left < 0:
            metrics.COMMANDS_REFUSED.labels("connection").inc()
            raise CommandError(
                ErrorCode.TOO_MANY_REQUESTS,
                f"A connection may send {_COMMANDS_PER_S:.0f} commands a second; longer ones count once for "
                f"every {_BYTES_OF_A_COMMAND} bytes.",
            )
        if self.owner:
            self.count_of(self.owner, weight)

    def count_of(self, owner: str, weight: int) -> None:
        """Count a command of `owner` that is as much work as `weight` usual ones. Raise `CommandError`."""
        if not self._owners.take(owner, weight):
            self.is_over = True
            metrics.COMMANDS_REFUSED.labels("owner").inc()
            raise CommandError(
                ErrorCode.TOO_MANY_REQUESTS,
                f"All connections of one owner together may send {self._owners.per_s:.0f} commands a second.",
            )

    async def pause(self) -> None:
        """Leave the loop to other connections: for a turn, or longer after one over the owner's rate.

        Commands that arrived during a long pause cause no other one: a client that sends each command on its
        own would wait so long for the answers that it reconnects.
        """
        is_long, self.is_over = self.is_over and self._owners.clock() >= self._pauses_from, False
        await asyncio.sleep(self._owners.pause_s if is_long else 0)
        if is_long:
            self._pauses_from = self._owners.clock() + self._owners.pause_s
