"""The connection of one request: only to checked addresses, read in small parts up to a limit."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Iterable, Sequence
from typing import Any

import httpcore

from chassis.egress.addresses import Address

# The most bytes of an answer beside its content: its head, earlier heads (1xx), and the sizes of chunks.
MOST_FRAMING_BYTES = 32 * 1024
# The bytes read at a time. The parser handles them without a pause, which takes long for chunks of one byte.
_PART_BYTES = 4096
# The most addresses of a name that are tried; all of them are checked.
MOST_TRIED = 4


class FramingTooLarge(Exception):
    """An answer has more than `MOST_FRAMING_BYTES` besides its content."""


class PinnedNetwork(httpcore.AsyncNetworkBackend):
    """Connects to the addresses that were checked, whatever host is requested.

    The reader of the answer adds the length of its content to `content_bytes`.
    """

    def __init__(self, addresses: Sequence[Address]) -> None:
        self._addresses = addresses
        self._network = httpcore.AnyIOBackend()
        self._received_bytes = 0
        self.content_bytes = 0

    async def connect_tcp(
        self,
        host: str,  # noqa: ARG002
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        """Return a connection to the first address that accepts one."""
        *before, last = self._addresses[:MOST_TRIED]
        for address in before:
            try:
                found = await self._network.connect_tcp(
                    str(address), port, timeout, local_address, socket_options
                )
            except (httpcore.ConnectError, httpcore.ConnectTimeout):
                continue
            return _Metered(found, self)
        found = await self._network.connect_tcp(str(last), port, timeout, local_address, socket_options)
        return _Metered(found, self)

    async def sleep(self, seconds: float) -> None:
        """Wait between attempts."""
        await asyncio.sleep(seconds)

    def received(self, count: int) -> None:
        """Count bytes that have arrived. Raise `FramingTooLarge` once too many of them are not content."""
        self._received_bytes += count
        if self._received_bytes - self.content_bytes > MOST_FRAMING_BYTES + _PART_BYTES:
            raise FramingTooLarge


class _Metered(httpcore.AsyncNetworkStream):
    def __init__(self, stream: httpcore.AsyncNetworkStream, network: PinnedNetwork) -> None:
        self._stream = stream
        self._pinned = network

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        part = await self._stream.read(min(max_bytes, _PART_BYTES), timeout)
        self._pinned.received(len(part))
        return part

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:
        await self._stream.write(buffer, timeout)

    async def aclose(self) -> None:
        await self._stream.aclose()

    async def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.AsyncNetworkStream:
        found = await self._stream.start_tls(ssl_context, server_hostname, timeout)
        return _Metered(found, self._pinned)

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)
