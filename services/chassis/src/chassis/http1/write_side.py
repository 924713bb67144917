"""The write side of a connection: what is sent to the client, and whether the client takes it."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Callable

from chassis.http1.limits import UNSENT_BYTES


class WriteSide(asyncio.Protocol):
    """A connection that writes, and `is_blocked` while its client has not taken all that was written."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport
        self._socket: socket.socket | None = None
        self.is_blocked = self._is_closing = False
        self._writable = asyncio.Event()
        self._writable.set()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Limit what the system and the transport buffer."""
        self._transport = transport  # type: ignore[assignment]  # of a TCP connection
        # Whatever the system does not take at once is counted, from its first byte.
        self._transport.set_write_buffer_limits(high=0)
        self._socket = transport.get_extra_info("socket")
        if self._socket is not None:
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, UNSENT_BYTES)

    def pause_writing(self) -> None:
        """Make the application wait until the client has read more."""
        self.is_blocked = True
        self._writable.clear()

    def resume_writing(self) -> None:
        """Let the application write again."""
        self.is_blocked = False
        self._writable.set()

    @property
    def unsent(self) -> int:
        """The number of bytes that the system has not taken yet."""
        return self._transport.get_write_buffer_size()

    @property
    def write(self) -> Callable[[bytes], None]:
        """The function that sends bytes to the client."""
        return self._transport.write

    async def drain(self) -> None:
        """Wait until the client has read what was written."""
        await self._writable.wait()

    def abort(self) -> None:
        """Abort the connection, so that the client sees that the answer is incomplete."""
        self._is_closing = True
        # Discard what the kernel has taken of the answer, too: it would keep it for minutes for the client.
        if self._socket is not None:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            # A second abort would find it closed.
            self._socket = None
        self._transport.abort()
