"""The neighbour: an owner who reads quotes, holds a socket and a webhook, sends mails and runs batches.

`python -m faults.neighbour <home as JSON>` is one in a process of its own, so that nothing which the relay
and the provider of the tests have to do is measured along: it says `ready`, lives until its input ends, and
then prints its diary as JSON.
"""

from __future__ import annotations

import asyncio
import smtplib
import ssl
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from email.message import EmailMessage
from itertools import count
from typing import Any

import httpx
import orjson
import websockets
from pydantic import TypeAdapter

from faults.street import SYMBOLS, Street, environment, put_into_mailbox
from support.doubles.receiver import receiver

ITEMS = 10
# After so long, work is taken for lost.
PATIENCE_S = 30.0
_READ_EVERY_S = 0.025
_SAY_EVERY_S = 0.1
_ARRIVE_EVERY_S = 0.5
# Each client would read the certificates anew, which takes 30 ms of this loop; nothing here is encrypted.
_TRUSTED = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
_ENDED = ("completed", "failed", "cancelled", "expired")
# The second is written by a process that all owners share, as long mails are.
_LETTERS = ("<p>How are <b>you</b>?", "<p>" + "How are <b>you</b>? " * 1200)


@dataclass
class Diary:
    """The experience of the neighbour.

    `latencies_s` are of requests over kept connections, `arrivals_s` of requests that open one. `errands_s`
    says how long each kind of work took from its acceptance to its end, `troubles` what went wrong, and how
    often.
    """

    latencies_s: list[float] = field(default_factory=list)
    # What was asked, for each of the latencies.
    asked: list[str] = field(default_factory=list)
    arrivals_s: list[float] = field(default_factory=list)
    said: list[str] = field(default_factory=list)
    heard: list[str] = field(default_factory=list)
    errands_s: dict[str, list[float]] = field(default_factory=dict)
    undone: Counter[str] = field(default_factory=Counter)
    refused: Counter[str] = field(default_factory=Counter)
    troubles: Counter[str] = field(default_factory=Counter)

    @property
    def p99_s(self) -> float:
        """The latency that 99 of 100 requests stay below, those that open a connection included."""
        ordered = sorted((*self.latencies_s, *self.arrivals_s))
        return ordered[int(len(ordered) * 0.99)] if ordered else float("inf")

    @property
    def waited_for(self) -> Counter[str]:
        """Return the paths of the slowest of 100 requests, each with its number of requests."""
        slowest = sorted(zip(self.latencies_s, self.asked, strict=False), reverse=True)
        return Counter(asked for _, asked in slowest[: -(-len(slowest) // 100)])

    @property
    def lost(self) -> list[str]:
        """Return the messages that were sent and not received exactly once and in order."""
        if self.heard == self.said:
            return []
        heard = Counter(self.heard)
        return [one for one in self.said if heard[one] != 1] or ["the order"]

    def slowest_s(self, errand: str) -> float:
        """Return the longest time that work of this kind took; infinite when none was done."""
        return max(self.errands_s.get(errand, ()), default=float("inf"))


@dataclass(frozen=True)
class Home:
    """The addresses of a neighbour: the gateway with its key, and both ends of the development mailbox."""

    url: str
    key: str
    mailbox_smtp: tuple[str, int]
    mailbox_url: str


_HOME, _DIARY = TypeAdapter(Home), TypeAdapter(Diary)


class Neighbour:
    """Uses the product until it is told to stop, and records in `diary` what happens to it."""

    def __init__(self, home: Home) -> None:
        self.diary = Diary()
        self.is_settled = asyncio.Event()
        self._home = home
        self._room = f"home-{time.monotonic_ns()}"
        self._webhook = ""
        self._mails = 0
        self._is_listening = asyncio.Event()

    async def live(self, until: asyncio.Event) -> Diary:
        """Repeat every kind of work until `until` is set, and then finish what was begun."""
        async with self.new_client() as client, receiver() as receiving:
            answer = await client.post("/v1/rooms", json={"name": self._room})
            assert answer.status_code == 201, answer.text
            wanted = {"url": receiving.url, "events": ["email.delivered"]}
            answer = await client.post("/v1/webhooks", json=wanted)
            assert answer.status_code == 201, answer.text
            self._webhook = answer.json()["id"]
            listening = asyncio.create_task(self._listen())
            await asyncio.wait_for(self._is_listening.wait(), PATIENCE_S)
            self.is_settled.set()
            activities: tuple[Callable[[httpx.AsyncClient], Awaitable[None]], ...] = (
                *(self._read_quotes, self._say, self._arrive, self._ask_provider),
                *(self._send_mail, self._run_batch, self._look_into_mailbox, self._test_webhook),
            )
            async with asyncio.TaskGroup() as tasks:
                for activity in activities:
                    tasks.create_task(_repeat(activity, client, until))
            await self._hear_all()
            listening.cancel()
            await asyncio.gather(listening, return_exceptions=True)
            with suppress(httpx.TransportError):
                # An owner may have few of them, and each guest has a neighbour of its own.
                await client.delete(f"/v1/webhooks/{self._webhook}")
        return self.diary

    def new_client(self) -> httpx.AsyncClient:
        """Return a client of the gateway with the neighbour's key and no connection yet."""
        return httpx.AsyncClient(
            base_url=self._home.url,
            headers={"Authorization": f"Bearer {self._home.key}"},
            timeout=PATIENCE_S,
            verify=_TRUSTED,
        )

    # What is measured: reads and chat lines over kept connections, and requests that open a connection.

    async def _read_quotes(self, client: httpx.AsyncClient) -> None:
        await self._ask(client, "GET", f"/v1/stocks/{SYMBOLS[0]}", wanted=200)
        await asyncio.sleep(_READ_EVERY_S)

    async def _say(self, client: httpx.AsyncClient) -> None:
        text = f"line {len(self.diary.said)}"
        answer = await self._ask(
            client, "POST", f"/v1/rooms/{self._room}/messages", wanted=201, json={"text": text}
        )
        if answer is not None:
            self.diary.said.append(text)
        await asyncio.sleep(_SAY_EVERY_S)

    async def _arrive(self, _: httpx.AsyncClient) -> None:
        started = time.monotonic()
        try:
            async with self.new_client() as fresh:
                answer = await fresh.get("/v1/me")
        except httpx.TransportError as error:
            self.diary.refused[f"a new connection: {type(error).__name__}"] += 1
        else:
            if answer.status_code == 200:
                self.diary.arrivals_s.append(time.monotonic() - started)
            else:
                self.diary.refused[f"a new connection: {answer.status_code}"] += 1
        await asyncio.sleep(_ARRIVE_EVERY_S)

    async def _ask(
        self, client: httpx.AsyncClient, method: str, path: str, *, wanted: int, **options: Any
    ) -> httpx.Response | None:
        """Return the answer of the wanted status; note its time, or what came in its place."""
        started = time.monotonic()
        try:
            answer = await client.request(method, path, **options)
        except httpx.TransportError as error:
            self.diary.troubles[f"{method} {path}: {type(error).__name__}"] += 1
            return None
        self.diary.latencies_s.append(time.monotonic() - started)
        self.diary.asked.append(f"{method} /{path.split('/')[2]}")
        if answer.status_code == wanted:
            return answer
        where = self.diary.refused if answer.status_code < 500 else self.diary.troubles
        where[f"{method} {path}: {answer.status_code}"] += 1
        return None

    # What must be done in time.

    async def _send_mail(self, client: httpx.AsyncClient) -> None:
        letter = _LETTERS[self._mails % len(_LETTERS)]
        self._mails += 1
        body = {"to": ["friend@neighbour.example"], "subject": "hello", "html": letter}
        await self._finish("mail", client, "/v1/emails", body, ("delivered", "failed"))

    async def _run_batch(self, client: httpx.AsyncClient) -> None:
        body = {"operation": "echo", "items": [{"payload": number} for number in range(ITEMS)]}
        await self._finish("batch", client, "/v1/batches", body, _ENDED)

    async def _test_webhook(self, client: httpx.AsyncClient) -> None:
        await self._finish("webhook", client, f"/v1/webhooks/{self._webhook}/test", None, ("succeeded",))
        await asyncio.sleep(_ARRIVE_EVERY_S)

    async def _finish(
        self, errand: str, client: httpx.AsyncClient, path: str, body: Any, ends: tuple[str, ...]
    ) -> None:
        accepted = await self._ask(client, "POST", path, wanted=202, json=body)
        if accepted is None:
            await asyncio.sleep(_SAY_EVERY_S)
            return

        async def ended() -> bool:
            found = await self._ask(client, "GET", accepted.headers["location"], wanted=200)
            return found is not None and found.json()["status"] in ends

        await self._within_patience(errand, ended)

    async def _ask_provider(self, client: httpx.AsyncClient) -> None:
        wanted = SYMBOLS[1]

        async def has_come() -> bool:
            answer = await client.get("/v1/stocks", params={"symbols": ",".join(SYMBOLS[1:])})
            return answer.status_code == 200 and any(
                quote["symbol"] == wanted for quote in answer.json()["quotes"]
            )

        await self._within_patience("provider's quote", has_come)
        await asyncio.sleep(_ARRIVE_EVERY_S)

    async def _look_into_mailbox(self, _: httpx.AsyncClient) -> None:
        subject = f"to be seen {time.monotonic_ns()}"
        await asyncio.to_thread(put_into_mailbox, self._home.mailbox_smtp, _mail(subject))

        async def is_listed() -> bool:
            url = f"{self._home.mailbox_url}/api/v1/messages"
            async with httpx.AsyncClient(timeout=PATIENCE_S, verify=_TRUSTED) as mailbox:
                answer = await mailbox.get(url, params={"limit": 1000})
            return answer.status_code == 200 and any(
                one["Subject"] == subject for one in orjson.loads(answer.content)["messages"]
            )

        await self._within_patience("stored mail", is_listed)
        await asyncio.sleep(_ARRIVE_EVERY_S)

    async def _within_patience(self, errand: str, is_done: Callable[[], Awaitable[bool]]) -> None:
        started = time.monotonic()
        while time.monotonic() < started + PATIENCE_S:
            try:
                if await is_done():
                    self.diary.errands_s.setdefault(errand, []).append(time.monotonic() - started)
                    return
            except httpx.TransportError as error:
                self.diary.troubles[f"{errand}: {type(error).__name__}"] += 1
            await asyncio.sleep(0.05)
        self.diary.undone[errand] += 1

    # What is pushed.

    async def _listen(self) -> None:
        address = f"{self._home.url.replace('http', 'ws')}/v1/realtime"
        try:
            async with websockets.connect(address, proxy=None) as socket:
                numbers = count(1)
                connect = {"connect": {"token": self._home.key}}
                for command in (connect, *({"subscribe": {"channel": one}} for one in self._channels)):
                    await socket.send(orjson.dumps({"id": next(numbers), **command}).decode())
                async for frame in socket:
                    await self._take(socket, str(frame).splitlines())
        except (OSError, websockets.WebSocketException) as error:
            self.diary.troubles[f"the socket: {error!r}"] += 1

    @property
    def _channels(self) -> tuple[str, ...]:
        return (f"quotes:{SYMBOLS[0]}", f"chat:{self._room}")

    async def _take(self, socket: Any, lines: list[str]) -> None:
        for frame in map(orjson.loads, lines):
            if not frame:
                await socket.send("{}")
            elif frame.get("id") == len(self._channels) + 1:
                self._is_listening.set()
            elif frame.get("push", {}).get("channel") == self._channels[1] and "pub" in frame["push"]:
                said = frame["push"]["pub"]["data"]
                # A guest may talk in this room, too.
                if said["user"] == "neighbour":
                    self.diary.heard.append(said["text"])

    async def _hear_all(self) -> None:
        end = time.monotonic() + PATIENCE_S / 3
        while self.diary.lost and time.monotonic() < end:
            await asyncio.sleep(0.05)


async def _repeat(
    activity: Callable[[httpx.AsyncClient], Awaitable[None]],
    client: httpx.AsyncClient,
    until: asyncio.Event,
) -> None:
    while not until.is_set():
        try:
            await activity(client)
        except (OSError, smtplib.SMTPException):
            # The mailbox's own port; what cannot be put into it is not seen in it.
            await asyncio.sleep(_SAY_EVERY_S)


def _mail(subject: str) -> EmailMessage:
    mail = EmailMessage()
    mail["From"], mail["To"], mail["Subject"] = "neighbour@example.com", "friend@example.com", subject
    mail.set_content("Do you see me?")
    return mail


@asynccontextmanager
async def living(street: Street) -> AsyncIterator[asyncio.Future[Diary]]:
    """Run a neighbour on `street` during the block; its diary is complete at the end."""
    home = Home(street.url, street.keys["neighbour"], street.mailbox.smtp, street.mailbox.url)
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "faults.neighbour", _HOME.dump_json(home).decode()),
        env=environment(),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    diary: asyncio.Future[Diary] = asyncio.get_running_loop().create_future()
    try:
        async with asyncio.timeout(PATIENCE_S):
            assert await process.stdout.readline() == b"ready\n", "the neighbour could not settle"
        yield diary
        process.stdin.close()
        async with asyncio.timeout(3 * PATIENCE_S):
            diary.set_result(_DIARY.validate_json(await process.stdout.read()))
    finally:
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()


async def _live(home: Home) -> None:
    neighbour, until = Neighbour(home), asyncio.Event()
    life = asyncio.create_task(neighbour.live(until))
    settled = asyncio.create_task(neighbour.is_settled.wait())
    await asyncio.wait({life, settled}, return_when=asyncio.FIRST_COMPLETED)
    if not life.done():
        print("ready", flush=True)
        await asyncio.to_thread(sys.stdin.read)
        until.set()
    print(_DIARY.dump_json(await life).decode())


if __name__ == "__main__":
    asyncio.run(_live(_HOME.validate_json(sys.argv[1])))
