"""The looks for deliveries that are due."""

from __future__ import annotations

import asyncio
import gc
import socket
import threading
import tracemalloc
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import Any, cast
from uuid import UUID

import pytest

from chassis import shares
from chassis.egress.client import GuardedClient, HttpRequest
from chassis.egress.destinations import InternalTargets
from chassis.errors import ServiceError
from chassis.loop_turns import LoopTurns
from chassis.postgres import Postgres
from gateway.webhooks.deliverer import ATTEMPT_BYTES, MOST_ANSWER_BYTES, MOST_AT_ONCE, Deliverer
from gateway.webhooks.secret_safe import SecretSafe
from support.background import in_background
from support.doubles.statements import AnsweredConnection
from support.waiting import until


class SlowDatabase:
    """A database in which nothing is due, and which takes long to find that out; then there is news."""

    def __init__(self) -> None:
        self.looks = 0
        self.deliverer: Deliverer | None = None

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[SlowDatabase]:
        yield self

    async def fetch(self, *_: Any) -> list[Any]:
        self.looks += 1
        await asyncio.sleep(0.1)
        assert self.deliverer is not None
        self.deliverer.wake()
        return []


async def test_after_a_long_look_the_database_is_left_alone_for_four_times_as_long() -> None:
    database = SlowDatabase()
    client, safe = GuardedClient(InternalTargets()), SecretSafe("a pepper")
    deliverer = Deliverer(cast("Postgres", database), safe, client, turns=LoopTurns())
    database.deliverer = deliverer
    await deliverer.begin()
    running = asyncio.create_task(deliverer.run())
    await asyncio.sleep(1.2)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    assert 1 <= database.looks <= 3


class BrokenOnce(SlowDatabase):
    """A database whose first answer cannot be understood; there is no news."""

    async def fetch(self, *_: Any) -> list[Any]:
        self.looks += 1
        if self.looks == 1:
            raise ValueError("not understood")
        return []


async def test_a_look_that_fails_unexpectedly_is_followed_by_one_without_news() -> None:
    database = BrokenOnce()
    client, safe = GuardedClient(InternalTargets()), SecretSafe("a pepper")
    deliverer = Deliverer(cast("Postgres", database), safe, client, turns=LoopTurns())
    await deliverer.begin()
    with pytest.raises(ValueError, match="not understood"):
        await deliverer.run()
    async with in_background(deliverer.run()):
        await until(lambda: database.looks == 2)


async def test_a_deliverer_that_is_closed_looks_no_more_and_runs_until_it_is_cancelled() -> None:
    database = BrokenOnce()
    database.looks = 1
    client, safe = GuardedClient(InternalTargets()), SecretSafe("a pepper")
    deliverer = Deliverer(cast("Postgres", database), safe, client, turns=LoopTurns())
    await deliverer.begin()
    running = asyncio.create_task(deliverer.run())
    await until(lambda: database.looks == 2)
    await deliverer.close()
    deliverer.wake()
    ended, _ = await asyncio.wait({running}, timeout=0.3)
    running.cancel()
    assert (ended, database.looks) == (set(), 2)


class OneDelivery:
    """A database with one delivery that is due; notes the share in which its outcome is stored."""

    def __init__(self, safe: SecretSafe) -> None:
        sealed = safe.new()
        self.stored_in: list[str] = []
        self._claimed: list[dict[str, Any]] = [
            {
                "id": UUID(int=2),
                "webhook_id": UUID(int=1),
                "owner_id": "7",
                "type": "email.failed",
                "attempts": 1,
                "made_by": "key",
                "maker_scopes": [],
                "url": "http://127.0.0.1:9/",
                "payload": "{}",
                "secret": sealed.content,
                "previous_secret": None,
                "sealed_with": sealed.sealed_with,
            }
        ]

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[AnsweredConnection]:
        yield AnsweredConnection(self)

    transaction = connection

    async def find_due_webhooks(self, *_: Any) -> list[dict[str, Any]]:
        webhook = {"id": UUID(int=1), "owner_id": "7", "is_failing": False, "due_in_s": 0.0}
        return [webhook] if self._claimed else []

    async def claim_deliveries(self, *_: Any) -> list[dict[str, Any]]:
        claimed, self._claimed = self._claimed, []
        return claimed

    async def find_usable_keys(self, key_ids: list[str]) -> list[dict[str, Any]]:
        user = {"user_id": 7, "user_name": "Ann", "role": "member", "scopes": ["emails:read"]}
        digests = {"digest": b"", "previous_digest": None, "previous_until": None}
        return [{"id": key_id, "expires_at": None, **user, **digests} for key_id in key_ids]

    async def note_failure(self, *_: Any) -> None:
        """Nothing is kept of it."""

    async def record_attempt(self, *_: Any) -> None:
        self.stored_in.append(shares.current.get())


async def test_outcomes_are_stored_in_the_share_of_their_owner() -> None:
    safe = SecretSafe("a pepper")
    database = OneDelivery(safe)
    client = GuardedClient(InternalTargets())
    deliverer = Deliverer(cast("Postgres", database), safe, client, turns=LoopTurns())
    await deliverer.begin()
    async with in_background(deliverer.run()):
        await until(lambda: database.stored_in)
    assert database.stored_in == ["7"]


@contextmanager
def pouring(most: int) -> Iterator[int]:
    """Serve answers as fast as they are taken, each a little shorter than it says; yield the port.

    The server is made of threads that hold next to nothing, as their memory is counted, too.
    """
    head = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % (most + 1)
    body, listening = b"x" * most, socket.create_server(("127.0.0.1", 0), backlog=MOST_AT_ONCE)

    def pour(client: socket.socket) -> None:
        with client, suppress(OSError):
            client.recv(4096)
            client.sendall(head)
            client.sendall(body)
            client.recv(1)

    def accept() -> None:
        with suppress(OSError):
            while True:
                threading.Thread(target=pour, args=(listening.accept()[0],), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    with listening:
        yield int(listening.getsockname()[1])
        listening.shutdown(socket.SHUT_RDWR)


@pytest.mark.parametrize("most", [MOST_ANSWER_BYTES, 1 << 20])
async def test_an_attempt_takes_no_more_memory_than_it_is_counted_for(most: int) -> None:
    client = GuardedClient(InternalTargets.parse("127.0.0.1"))
    with pouring(most) as port:
        request = HttpRequest("POST", f"http://127.0.0.1:{port}/hook", {}, b"x" * 16_384)

        async def attempt() -> None:
            with suppress(ServiceError):
                await client.fetch(request, timeout_s=1, most_bytes=MOST_ANSWER_BYTES)

        # What is made once, and stays.
        await attempt()
        gc.collect()
        tracemalloc.start()
        try:
            await asyncio.gather(*(attempt() for _ in range(MOST_AT_ONCE)))
            most_bytes = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
    assert most_bytes <= MOST_AT_ONCE * ATTEMPT_BYTES
