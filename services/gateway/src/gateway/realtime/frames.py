"""WebSocket frames (RFC 6455) of a client, which are counted before they are parsed."""

from __future__ import annotations

from collections.abc import Callable

_MASKED = 0x80
_CONTROL = 0x08
# The markers of a length in two bytes, and of one in eight.
_LEAST_LENGTHS = {126: 126, 127: 65_536}
_FRAMES_PER_S = 100.0
_BURST = 500.0
# A client pings once in some seconds. Each ping needs an answer, and no limit on commands counts it.
_FRAMES_OF_A_CONTROL_FRAME = 10


class FrameBudget:
    """Counts the frames of every kind that a client sends, using only their headers.

    A connection may send `_BURST` frames at once and `_FRAMES_PER_S` per second on average; a control frame
    (ping, pong, close) counts as several. Counting stops at the end of the budget, so a flood costs no more
    than its first frames. `newest` is the count of the last piece of data. `is_padded` is true if the length
    of a frame was encoded in more bytes than necessary, which RFC 6455 forbids.
    """

    __slots__ = ("_at", "_clock", "_head", "_left", "_skip", "is_padded", "newest")

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._at = clock()
        self._left = _BURST
        self._skip = 0
        self._head = b""
        self.newest = 0
        self.is_padded = False

    @property
    def is_inside(self) -> bool:
        """Whether a frame has begun and is incomplete."""
        return self._skip > 0 or bool(self._head)

    def allows(self, data: bytes) -> bool:
        """Return whether the frames that begin in `data` are within the budget."""
        now = self._clock()
        self._left = min(_BURST, self._left + (now - self._at) * _FRAMES_PER_S)
        self._at = now
        self.newest = self._count(data, int(self._left) + 1)
        self._left -= self.newest
        return self._left >= 0

    def _count(self, data: bytes, most: int) -> int:
        """Return how many frames begin in `data`, hardly more than `most`."""
        if self._head:
            data, self._head = self._head + data, b""
        position, size, count = self._skip, len(data), 0
        while position < size and count < most:
            length = data[position + 1] & 0x7F if position + 1 < size else 0
            header = 2 + (0, 2, 8)[max(0, length - 125)]
            if position + header > size:
                self._head = data[position:]
                position = size
                break
            if length > 125:
                least = _LEAST_LENGTHS[length]
                length = int.from_bytes(data[position + 2 : position + header], "big")
                self.is_padded = self.is_padded or length < least
            masked = data[position + 1] & _MASKED
            count += _FRAMES_OF_A_CONTROL_FRAME if data[position] & _CONTROL else 1
            position += header + length + (4 if masked else 0)
        self._skip = position - size if position > size else 0
        return count
