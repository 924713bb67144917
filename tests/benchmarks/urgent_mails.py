"""Measure how long a transactional mail takes from its request at the gateway to DATA at the relay.

First with nothing else to do, then while a million bulk mails of another owner are queued (rows made by SQL)
and the same owner's transactional mails to a domain whose server never answers.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import asyncpg
import httpx

from benchmarks.letters import BenchLetter
from benchmarks.measures import Wait
from native.ports import HOST, free_port
from native.stack import Stack
from support.flood import COPIES_A_MAIL, copy_recipient
from support.waiting import until

TAR_PIT = "tarpit.example.com"
_STUCK = 200
_BULK_DOMAINS = 200
_MAILS = 300
_EVERY_S = 0.1
_PATIENCE_S = 60
_WANTED_S = 1.0
# The whole of it, on a machine that is four times as slow as the one where rates were set.
_MOST_S = 240


@dataclass
class WatchedRelay:
    """An SMTP server that notes when DATA comes for a recipient, and never answers to RCPT of `TAR_PIT`."""

    port: int
    data_at: dict[str, float] = field(default_factory=dict)
    taken: int = 0
    stuck: int = 0

    @classmethod
    @asynccontextmanager
    async def running(cls) -> AsyncIterator[WatchedRelay]:
        """Listen for the length of the block."""
        relay = cls(free_port())
        loop = asyncio.get_running_loop()
        server = await loop.create_server(lambda: _RelayConversation(relay), HOST, relay.port)
        try:
            yield relay
        finally:
            # Connections end when the service does, which has opened them.
            server.close()


class _RelayConversation(asyncio.Protocol):
    def __init__(self, relay: WatchedRelay) -> None:
        self._relay = relay
        self._unread = b""
        self._recipient = ""
        self._in_content = False
        self._is_stuck = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._transport.write(b"220 relay ESMTP\r\n")

    def data_received(self, data: bytes) -> None:
        self._unread += data
        while not self._is_stuck:
            part, end, rest = self._unread.partition(b"\r\n.\r\n" if self._in_content else b"\r\n")
            if not end:
                return
            self._unread = rest
            if self._in_content:
                self._take()
            else:
                self._follow(part)

    def _take(self) -> None:
        self._in_content = False
        self._relay.taken += 1
        self._transport.write(b"250 2.0.0 taken\r\n")

    def _follow(self, command: bytes) -> None:
        match command[:4].upper():
            case b"EHLO":
                self._transport.write(b"250-relay\r\n250 PIPELINING\r\n")
            case b"RCPT":
                self._recipient = command.partition(b"<")[2].partition(b">")[0].decode()
                self._is_stuck = self._recipient.endswith(TAR_PIT)
                self._relay.stuck += self._is_stuck
                if not self._is_stuck:
                    self._transport.write(b"250 2.1.5 recipient ok\r\n")
            case b"DATA":
                self._relay.data_at.setdefault(self._recipient, time.perf_counter())
                self._in_content = True
                self._transport.write(b"354 go on\r\n")
            case b"QUIT":
                self._transport.write(b"221 bye\r\n")
                self._transport.close()
            case _:
                self._transport.write(b"250 2.0.0 ok\r\n")


@dataclass(frozen=True)
class _LongQueue:
    """Two owners, the relay, and the database of the mail service as its superuser."""

    own: httpx.AsyncClient
    other: httpx.AsyncClient
    relay: WatchedRelay
    stack: Stack
    dsn: str

    @classmethod
    @asynccontextmanager
    async def of(cls, stack: Stack, relay: WatchedRelay) -> AsyncIterator[_LongQueue]:
        dsn = f"{stack.postgres.url.rpartition('/')[0]}/emailer"
        async with _client(stack, stack.api_key) as own:
            person = {"name": "Newsletter", "email": "newsletter@example.com"}
            user = (await own.post("/v1/users", json=person)).raise_for_status().json()
            wanted = {"name": "bulk", "scopes": ["emails:read", "emails:send"], "user_id": user["id"]}
            key = (await own.post("/v1/api-keys", json=wanted)).raise_for_status().json()["key"]
            async with _client(stack, key) as other:
                yield cls(own, other, relay, stack, dsn)

    async def times(self, numbers: range) -> list[float]:
        """Return the seconds from request to DATA of mails that are sent one each tenth of a second."""
        began: dict[str, float] = {}

        async def send(letter: BenchLetter) -> None:
            began[letter.to.partition("<")[2].rstrip(">")] = time.perf_counter()
            (await self.own.post("/v1/emails", json=_request(letter))).raise_for_status()

        # None waits for the one before: a mail that takes long must not keep others from being measured.
        async with asyncio.TaskGroup() as sending:
            for number in numbers:
                sending.create_task(send(BenchLetter.of(number)))
                await asyncio.sleep(_EVERY_S)
        data_at = self.relay.data_at
        await until(
            lambda: began.keys() <= data_at.keys(),
            timeout_s=_PATIENCE_S,
            what=lambda: f"DATA of {sorted(began.keys() - data_at.keys())[:3]}",
        )
        return [data_at[recipient] - at for recipient, at in began.items()]

    async def queue_bulk(self, count: int) -> None:
        """Queue so many bulk mails of the other owner while the service is away."""
        later = (datetime.now(UTC) + timedelta(hours=1)).isoformat()
        request = {**_request(BenchLetter.of(0)), "stream": "bulk", "send_at": later}
        accepted = (await self.other.post("/v1/emails", json=request)).raise_for_status().json()
        connection = await asyncpg.connect(self.dsn)
        try:
            stored = "SELECT EXISTS (SELECT FROM emails WHERE id = $1)"
            await until(lambda: connection.fetchval(stored, accepted["id"]), what=lambda: "a mail is stored")
        finally:
            await connection.close()
        await self.stack.stop("email")
        await copy_recipient(self.dsn, accepted["id"], count=count, domains=_BULK_DOMAINS)
        await self.stack.start("email")

    async def fill_tar_pit(self) -> None:
        """Send transactional mails of the other owner to the domain that never answers, and wait for it."""
        mails = [{**_request(BenchLetter.of(n)), "to": [f"reader-{n}@{TAR_PIT}"]} for n in range(_STUCK)]
        (await self.other.post("/v1/emails/batch", json={"emails": mails})).raise_for_status()
        await until(lambda: self.relay.stuck, what=lambda: f"a mail to {TAR_PIT} is under way")

    async def has_bulk(self) -> bool:
        """Return whether bulk mails wait."""
        connection = await asyncpg.connect(self.dsn)
        try:
            waits = "SELECT EXISTS (SELECT FROM recipients WHERE ready AND stream = 'bulk')"
            return bool(await connection.fetchval(waits))
        finally:
            await connection.close()


def _client(stack: Stack, key: str) -> httpx.AsyncClient:
    headers = {"Authorization": f"Bearer {key}"}
    return httpx.AsyncClient(base_url=stack.url, headers=headers, timeout=_PATIENCE_S)


def _request(letter: BenchLetter) -> dict[str, object]:
    return {"from": letter.sender, "to": [letter.to], "subject": letter.subject, "text": letter.text}


async def compare(stack: Stack, relay: WatchedRelay, *, scale: float, say: Callable[[str], None]) -> Wait:
    """Return the times with an empty queue and beside that of the other owner."""
    count = max(2, round(_MAILS * scale))
    queued = max(1, round(1_000_000 * scale / COPIES_A_MAIL)) * COPIES_A_MAIL
    async with asyncio.timeout(_MOST_S), _LongQueue.of(stack, relay) as scene:
        await scene.times(range(5))
        say(f"{count} transactional mails alone")
        alone = await scene.times(range(5, 5 + count))
        say(f"{queued:,} rows of bulk mail")
        await scene.queue_bulk(queued)
        taken_before = relay.taken
        await scene.fill_tar_pit()
        await until(lambda: relay.taken > taken_before, what=lambda: "bulk mails leave")
        say(f"{count} transactional mails beside {queued:,} bulk mails and a tar pit")
        taken_before = relay.taken
        times = await scene.times(range(5 + count, 5 + 2 * count))
        if not await scene.has_bulk() or relay.taken - taken_before <= count:
            raise RuntimeError("the bulk mails ended too early, or did not leave")
    name = (
        f"transactional mail, from HTTP to DATA, beside {queued:,} bulk mails and a tar pit of another owner"
    )
    return Wait(name, times, alone, _WANTED_S, share=0.99)
