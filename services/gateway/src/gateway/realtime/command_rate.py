"""The limit on the commands of one connection."""

from __future__ import annotations

from collections.abc import Callable

from gateway.realtime.codes import CloseCode, CloseConnection, CommandError, ErrorCode

_COMMANDS_PER_S = 50.0
# A client that reconnects subscribes to all its channels at once.
_BURST = 400.0
# Reading a command takes time that grows with its size: a longer one counts as several.
_BYTES_OF_A_COMMAND = 4 * 1024


class CommandRate:
    """Allows `_BURST` commands at once and `_COMMANDS_PER_S` per second on average; long ones count more.

    Commands over the rate are refused and can be sent again later; a client that continues is disconnected.
    """

    __slots__ = ("_at", "_clock", "_left")

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._at = clock()
        self._left = _BURST

    def count(self, size: int) -> None:
        """Count a command of `size` bytes. Raise `CommandError` over the rate, later `CloseConnection`."""
        now = self._clock()
        weight = 1 + size // _BYTES_OF_A_COMMAND
        self._left = min(_BURST, self._left + (now - self._at) * _COMMANDS_PER_S) - weight
        self._at = now
        if self._left < -_BURST:
            raise CloseConnection(CloseCode.TOO_MANY_REQUESTS)
        if self._left < 0:
            raise CommandError(
                ErrorCode.TOO_MANY_REQUESTS,
                f"A connection may send {_COMMANDS_PER_S:.0f} commands a second; longer ones count once for "
                f"every {_BYTES_OF_A_COMMAND} bytes.",
            )
