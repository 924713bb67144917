"""The parts that every flood needs: its target and duration, raw exchanges, and many of them side by side."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field, replace
from uuid import uuid4

import httpx

from native.ports import HOST

_MIB = 1 << 20
# Of `enum` in Linux's netinet/tcp.h.
_ESTABLISHED = 1


@dataclass(frozen=True)
class Address:
    """The addresses of the gateway and the mailbox, the key of the guests, and the time that they stay."""

    gateway: int
    mailbox_smtp: int
    key: str
    seconds: float
    began_at: float = field(default_factory=time.monotonic)

    @property
    def is_over(self) -> bool:
        """Return whether the guest's time is up."""
        return self.left_s == 0

    @property
    def is_late(self) -> bool:
        """Return whether five times the period is over, the limit for input that is sent in full."""
        return time.monotonic() > self.began_at + 5 * self.seconds

    def anew(self) -> Address:
        """Return the same with the whole time, for a guest that has prepared something first."""
        return replace(self, began_at=time.monotonic())

    @property
    def left_s(self) -> float:
        """Return the seconds that are left of the guest's time."""
        return max(0.0, self.began_at + self.seconds - time.monotonic())

    def client(self) -> httpx.AsyncClient:
        """Return a client of the gateway with the guest's key, and with as many connections as are used."""
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=None)
        headers = {"Authorization": f"Bearer {self.key}"}
        url = f"http://{HOST}:{self.gateway}"
        return httpx.AsyncClient(base_url=url, headers=headers, timeout=30, limits=limits)

    def head(self, line: str, *fields: str) -> bytes:
        """Return the head of a request with the guest's key."""
        own = (f"{line} HTTP/1.1", "Host: gateway", f"Authorization: Bearer {self.key}", *fields)
        return ("\r\n".join(own) + "\r\n\r\n").encode()


async def exchange(
    at: Address, parts: Iterable[bytes], *, port: int = 0, source: str = "127.0.0.2", wait_s: float = 10
) -> bytes:
    """Send `parts` from `source` until the other side has enough; return the beginning of what it answers."""
    reader, writer = await asyncio.open_connection(HOST, port or at.gateway, local_addr=(source, 0))
    try:
        with contextlib.suppress(ConnectionError):
            for part in parts:
                writer.write(part)
                await writer.drain()
        async with asyncio.timeout(wait_s):
            return await reader.read(_MIB)
    except (ConnectionError, TimeoutError):
        return b""
    finally:
        writer.transport.abort()


async def hold_each(
    at: Address,
    count: int,
    once: Callable[[int, Callable[[], None]], Awaitable[None]],
    *,
    within_s: float,
    opening: int,
    is_done: Callable[[], bool] = lambda: True,
) -> None:
    """Begin `once` so often, evenly over `within_s` seconds, and cancel those that go on when the time is up.

    `once` is called with its number, and with a function that it calls when it has opened its connection: so
    many open theirs at a time. On a slow machine it takes longer, also until it `is_done`, or too late.
    """
    places, running = asyncio.Semaphore(opening), set[asyncio.Future[None]]()
    for number in range(count):
        # Not all in one moment: the queue of the listening socket is the system's.
        due_at = at.began_at + within_s * number / count
        await asyncio.sleep(max(0.0, due_at - time.monotonic()))
        await places.acquire()
        if at.is_late:
            break
        task = asyncio.ensure_future(once(number, places.release))
        running.add(task)
        task.add_done_callback(running.discard)
    while not (at.is_late or (at.is_over and is_done())):
        await asyncio.sleep(0.1)
    for still in running:
        still.cancel()
    await asyncio.gather(*running, return_exceptions=True)


def slow_socket(source: str, *, receive_bytes: int = 4096) -> socket.socket:
    """Return a socket of `source` for which the system reads next to nothing in advance."""
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
    client.setblocking(False)
    client.bind((source, 0))
    return client


def is_established(client: socket.socket) -> bool:
    """Return whether neither side has closed the connection, without reading from it."""
    state: int = client.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0]
    return state == _ESTABLISHED


async def full_room(client: httpx.AsyncClient) -> str:
    """Make a room whose messages fill one answer; return its name."""
    room = f"guest-{uuid4().hex[:12]}"
    await client.post("/v1/rooms", json={"name": room})
    line = {"text": "x" * 4000}
    await asyncio.gather(*(client.post(f"/v1/rooms/{room}/messages", json=line) for _ in range(110)))
    return room


async def side_by_side(at: Address, count: int, once: Callable[[int], Awaitable[object]]) -> int:
    """Do `once`, `count` at a time, until the time is up; return how often it was begun."""
    done = 0

    async def lane(number: int) -> None:
        nonlocal done
        while not at.is_over:
            done += 1
            with contextlib.suppress(OSError, TimeoutError):
                await once(number)

    await asyncio.gather(*(lane(number) for number in range(count)))
    return done
