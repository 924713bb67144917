"""The lines of an SMTP connection: commands are sent at once, replies are returned in order."""

from __future__ import annotations

import asyncio
import re
from collections import deque
from contextlib import suppress
from typing import cast

from emailer.errors import ConnectionLost
from emailer.sending.outcomes import SmtpReply

# A server that never ends a line, or a reply, or that sends replies to no command, must not fill the memory.
_LONGEST_REPLY = 64 * 1024
_MOST_UNREAD = 20
# Under TLS nothing tells that the connection below has sent something.
_LOOK_S = 0.02
_REPLY_LINE = re.compile(r"[0-9]{3}([ -]|$)")


class Wire(asyncio.Protocol):
    """Parses replies as they arrive, several to one write, as pipelining needs."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        # The connection that carries the encrypted one.
        self._below: asyncio.Transport | None = None
        self._buffer = b""
        self._lines: list[str] = []
        # The octets of the reply that has begun.
        self._size = 0
        self._replies: deque[SmtpReply] = deque()
        self._wanted = 0
        # Resolved to whether they are there; false when it is too late.
        self._arrived: asyncio.Future[bool] | None = None
        self._deadline = 0.0
        # One for many replies: to start and stop one for each would cost more than to read it.
        self._timer: asyncio.TimerHandle | None = None
        self._lost: str | None = None
        self._is_drained = True
        self._moved = asyncio.Event()

    @property
    def transport(self) -> asyncio.Transport:
        """The connection underneath."""
        assert self._transport is not None
        return self._transport

    @property
    def is_quiet(self) -> bool:
        """Whether the connection is open, and nothing unrequested has arrived (such as a 421)."""
        return self._lost is None and not self._replies and not self._buffer and not self._lines

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the transport; called again with the encrypted one, once TLS has begun."""
        self._below = self._transport
        # uvloop's transports are not subclasses of `asyncio.Transport`.
        self._transport = cast(asyncio.Transport, transport)
        if self._below is None:
            # Tell when the kernel has accepted every byte. An encrypted transport tells of other things.
            self._transport.set_write_buffer_limits(high=0)

    def data_received(self, data: bytes) -> None:
        """Take bytes from the relay."""
        *lines, self._buffer = (self._buffer + data).split(b"\n")
        for line in lines:
            # PostgreSQL cannot store NUL, and the reply will be recorded.
            text = line.rstrip(b"\r").decode("utf-8", "replace").replace("\0", "\ufffd")
            if not _REPLY_LINE.match(text):
                self._break(f"the relay does not speak SMTP: {text[:80]!r}")
                return
            # Lines without text count, too.
            self._size += len(line) + 1
            self._lines.append(text[4:])
            if self._size > _LONGEST_REPLY or len(self._replies) == _MOST_UNREAD:
                break
            if text[3:4] != "-":
                self._replies.append(SmtpReply(int(text[:3]), "\n".join(self._lines)))
                self._lines, self._size = [], 0
        if self._size + len(self._buffer) > _LONGEST_REPLY:
            self._break("the relay sent an overlong reply")
            return
        if len(self._replies) == _MOST_UNREAD:
            self._break("the relay sent replies to no command")
            return
        self._tell()

    def eof_received(self) -> None:
        """Note that the relay has closed its side; the transport then closes."""
        self._note_sent()
        self._end("the relay closed the connection")

    def connection_lost(self, exc: Exception | None) -> None:
        """Note that the connection has ended."""
        self._end(f"the connection broke: {exc}" if exc else "the relay closed the connection")

    def resume_writing(self) -> None:
        """Note that written bytes were sent."""
        self._note_sent()
        self._moved.set()

    async def drained(self, *, timeout_s: float) -> bool:
        """Wait until all written bytes were sent; return False when a reply has arrived before that.

        Raise `ConnectionLost` when the connection ends, or no byte is sent for `timeout_s`.
        """
        loop = asyncio.get_running_loop()
        least, deadline = self._unsent_bytes, loop.time() + timeout_s
        while not self._is_drained and not self._replies:
            if self._lost is not None:
                raise ConnectionLost(self._lost, after_dot=False)
            self._moved.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout_at(min(deadline, loop.time() + _LOOK_S)):
                    await self._moved.wait()
            self._note_sent()
            if (unsent := self._unsent_bytes) < least:
                least, deadline = unsent, loop.time() + timeout_s
            elif loop.time() >= deadline:
                self._break(f"the relay accepted no data for {timeout_s:g} s")
        return self._is_drained

    def write(self, data: bytes) -> None:
        """Send `data`; a broken connection is reported when the reply is awaited."""
        if self._lost is None:
            self.transport.write(data)
            self._note_sent()

    async def replies(self, count: int, *, timeout_s: float, after_dot: bool = False) -> list[SmtpReply]:
        """Return the next `count` replies, or fewer (at least one) when the connection ends after them.

        Raise `ConnectionLost` when none arrives, or not all arrive in time. A time-out breaks the connection,
        because a late reply would be taken for the answer to another command.
        """
        if len(self._replies) < count and self._lost is None:
            loop = asyncio.get_running_loop()
            self._wanted, self._arrived = count, loop.create_future()
            self._deadline = loop.time() + timeout_s
            if self._timer is None or self._timer.when() > self._deadline:
                self._watch_clock()
            try:
                is_there = await self._arrived
            finally:
                self._arrived = None
            if not is_there:
                reason = f"no answer from the relay within {timeout_s:g} s"
                self._break(reason)
                raise ConnectionLost(reason, after_dot=after_dot, is_silent=True)
        found = [self._replies.popleft() for _ in range(min(count, len(self._replies)))]
        if not found:
            raise ConnectionLost(self._lost or "the relay gave no reason", after_dot=after_dot)
        return found

    def abort(self) -> None:
        """Drop the connection without sending QUIT."""
        self._break("closed by us")

    @property
    def _unsent_bytes(self) -> int:
        """The written bytes that the kernel has not accepted, as they are kept: encrypted or not yet."""
        carried = 0 if self._below is None else self._below.get_write_buffer_size()
        return self.transport.get_write_buffer_size() + carried

    def _note_sent(self) -> None:
        """Note whether the kernel has accepted all written bytes."""
        # A transport that closes forgets them: they are lost with the connection, and never sent.
        carrier = self._below or self._transport
        if carrier is not None and self._lost is None and not carrier.is_closing():
            self._is_drained = not self._unsent_bytes

    def _tell(self) -> None:
        waiting = self._arrived is not None and not self._arrived.done()
        if waiting and (len(self._replies) >= self._wanted or self._lost is not None):
            assert self._arrived is not None
            self._arrived.set_result(True)

    def _watch_clock(self) -> None:
        """Give up the awaited reply if its deadline has passed; otherwise look again at that time."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._arrived is None or self._arrived.done():
            return
        loop = asyncio.get_running_loop()
        if loop.time() >= self._deadline:
            self._arrived.set_result(False)
        else:
            self._timer = loop.call_at(self._deadline, self._watch_clock)

    def _break(self, reason: str) -> None:
        self._end(reason)
        if self._transport is not None:
            self._transport.abort()

    def _end(self, reason: str) -> None:
        self._lost = self._lost or reason
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._moved.set()
        self._tell()
