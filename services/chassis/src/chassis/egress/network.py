"""The connection of one request: to checked addresses only, and read in small parts up to a limit."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Iterable, Sequence
from typing import Any

import httpcore

from chassis.egress.addresses import Address

# Of an answer beside its content: its head, heads before it (1xx), and the sizes of chunks.
MOST_FRAMING_BYTES = 32 * 1024
# Read at a time. A parser goes through all of it without a pause, and chunks of one byte take long.
_PART_BYTES = 4096
# Only so many addresses of a name are tried, but all of them are checked.
MOST_TRIED = 4


class FramingTooLarge(Exception):
    """An answer has more than `MOST_FRAMING_BYTES` besides its content."""


class PinnedNetwork(httpcore.AsyncNetworkBackend):
    """Connects to the addresses that were checked, whatever host is requested.

    Who reads the answer adds its content to `content_bytes`.
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
        """Count what has arrived. Raise `FramingTooLarge` once too much of it is not content."""
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
