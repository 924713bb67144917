"""A real SMTP server that a test scripts: it refuses, defers, hangs up around the dot, or is slow."""

from __future__ import annotations

import asyncio
import base64
import ssl
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from email import message_from_bytes, policy
from email.message import EmailMessage
from typing import Literal

Stage = Literal["mail", "rcpt", "data", "content"]

HANG_UP = "hang up"
HANG_UP_BEFORE_DOT = "hang up before the dot"
SAY_NOTHING = "say nothing"
STOP_READING = "stop reading"


@dataclass(frozen=True)
class Step:
    """The answer to one attempt at a recipient: a reply line, `HANG_UP` or `SAY_NOTHING`, at `stage`."""

    stage: Stage
    answer: str


@dataclass(frozen=True)
class ReceivedMail:
    """A mail that arrived completely, whether or not the sender got an answer."""

    sender: str
    recipient: str
    content: bytes
    tls: bool
    login: str | None
    connection: int

    @property
    def message(self) -> EmailMessage:
        """The mail as a mail program reads it."""
        parsed = message_from_bytes(self.content, policy=policy.default)
        assert isinstance(parsed, EmailMessage)
        return parsed


@dataclass
class SmtpServer:
    """Has a script for each recipient, with one step per attempt; after the last step it accepts mails."""

    extensions: list[str] = field(default_factory=lambda: ["PIPELINING", "8BITMIME", "SMTPUTF8"])
    greeting: str = "220 double ESMTP"
    hello_refusal: str | None = None
    tls_refusal: str | None = None
    login_refusal: str | None = None
    reset_refusal: str | None = None
    # A connection beyond so many at a time is refused.
    most_at_a_time: int | None = None
    # After so many mails a connection is closed, with these words or without any, unless it stays open.
    mails_a_connection: int | None = None
    farewell: str | None = None
    stays_open: bool = False
    tls: ssl.SSLContext | None = None
    implicit_tls: bool = False
    login: tuple[str, str] | None = None
    mechanisms: str = "PLAIN LOGIN"
    repeats_login: bool = False
    delay_s: float = 0
    # How long it waits with the answer to a mail.
    dot_delay_s: float = 0
    # How much is read ahead, and how long it waits after each 2,000 lines of a mail.
    buffer_bytes: int = 1 << 22
    read_delay_s: float = 0
    scripts: dict[str, list[Step]] = field(default_factory=lambda: defaultdict(list))
    received: list[ReceivedMail] = field(default_factory=list)
    commands: list[str] = field(default_factory=list)
    attempts: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    connections: int = 0
    open_connections: int = 0
    most_connections: int = 0
    port: int = 0
    _server: asyncio.Server | None = None
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)

    def script(self, recipient: str, *steps: Step) -> None:
        """Answer the next attempts at `recipient` with `steps`."""
        self.scripts[recipient].extend(steps)

    def received_by(self, recipient: str) -> list[ReceivedMail]:
        """Return the mails that arrived for `recipient`."""
        return [mail for mail in self.received if mail.recipient == recipient]

    async def start(self) -> None:
        """Listen; after a stop, on the same port as before."""
        context = self.tls if self.implicit_tls else None
        self._server = await asyncio.start_server(
            self._serve, "127.0.0.1", self.port, ssl=context, limit=self.buffer_bytes
        )
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Refuse new connections and cut the open ones."""
        assert self._server is not None
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self.connections += 1
        self.open_connections += 1
        self.most_connections = max(self.most_connections, self.open_connections)
        try:
            await _Conversation(self, reader, writer).run()
        except asyncio.CancelledError:
            # The server stops. To close a connection in TLS waits for the client, which may be gone.
            writer.transport.abort()
        except (ConnectionError, asyncio.IncompleteReadError, ssl.SSLError):
            pass
        finally:
            self.open_connections -= 1
            self._tasks.discard(task)
            writer.close()


class _HungUp(ConnectionError):
    pass


class _Conversation:
    def __init__(
        self, server: SmtpServer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self._server = server
        self._reader = reader
        self._writer = writer
        self._number = server.connections
        self._tls = server.implicit_tls
        self._login: str | None = None
        self._sender = ""
        self._recipient = ""
        self._refused = False
        self._taken = 0
        self._steps: dict[Stage, str] = {}
        # The command that was read before its turn.
        self._ahead = ""

    async def run(self) -> None:
        most = self._server.most_at_a_time
        if most is not None and self._server.open_connections > most:
            await self._say("421 4.7.0 too many connections")
            raise _HungUp
        await self._say(self._server.greeting)
        while True:
            line = self._ahead or (await self._reader.readuntil(b"\r\n")).decode().rstrip()
            self._ahead = ""
            self._server.commands.append(line)
            verb = line.split(" ")[0].split(":")[0].upper()
            if verb == "QUIT":
                await self._say("221 bye")
                return
            await getattr(self, f"_on_{verb.lower()}", self._on_unknown)(line)

    async def _say(self, *lines: str) -> None:
        if self._server.delay_s:
            await asyncio.sleep(self._server.delay_s)
        self._writer.write("".join(f"{line}\r\n" for line in lines).encode())
        await self._writer.drain()

    async def _act(self, stage: Stage, usual: str) -> bool:
        """Answer as the script says at `stage`, or as usual; return whether the answer was the usual one."""
        answer = self._steps.pop(stage, usual)
        if answer == HANG_UP:
            raise _HungUp
        if answer == SAY_NOTHING:
            await self._reader.read()
            raise _HungUp
        await self._say(answer)
        if answer.startswith("421"):
            raise _HungUp
        return answer == usual

    async def _on_unknown(self, line: str) -> None:
        await self._say("500 what?")

    async def _on_ehlo(self, line: str) -> None:
        if self._server.hello_refusal:
            await self._say(self._server.hello_refusal)
            return
        offered = [*self._server.extensions]
        if self._server.tls and not self._tls:
            offered.append("STARTTLS")
        if self._server.login:
            offered.append(f"AUTH {self._server.mechanisms}")
        lines = ["double", *offered]
        await self._say(*(f"250-{text}" for text in lines[:-1]), f"250 {lines[-1]}")

    async def _on_helo(self, line: str) -> None:
        await self._say("250 double")

    async def _on_starttls(self, line: str) -> None:
        assert self._server.tls is not None
        if self._server.tls_refusal:
            await self._say(self._server.tls_refusal)
            return
        await self._say("220 go ahead")
        await self._writer.start_tls(self._server.tls)
        self._tls = True

    async def _on_auth(self, line: str) -> None:
        if self._server.login_refusal:
            await self._say(self._server.login_refusal)
            return
        said = line
        if line.startswith("AUTH PLAIN "):
            _, user, password = base64.b64decode(line.split(" ")[2]).decode().split("\0")
        else:
            user, password = [await self._ask(prompt) for prompt in ("VXNlcm5hbWU6", "UGFzc3dvcmQ6")]
        if (user, password) == self._server.login:
            self._login = user
            await self._say("235 welcome")
        else:
            reported = f" ({said}, {password})" if self._server.repeats_login else ""
            await self._say(f"535 5.7.8 wrong user name or password{reported}")

    async def _ask(self, prompt: str) -> str:
        await self._say(f"334 {prompt}")
        return base64.b64decode(await self._reader.readline()).decode()

    async def _on_rset(self, line: str) -> None:
        self._recipient = ""
        await self._say(self._server.reset_refusal or "250 forgotten")

    async def _on_mail(self, line: str) -> None:
        if self._taken == self._server.mails_a_connection:
            if self._server.farewell:
                await self._say(self._server.farewell)
            if not self._server.stays_open:
                raise _HungUp
            self._refused = True
            return
        self._sender = _address(line)
        self._recipient = ""
        if self._server.login and self._login is None:
            self._refused = True
            await self._say("530 5.7.0 authentication required")
            return
        # The recipient decides, and with pipelining it is known already.
        self._steps = self._next_steps(await self._peek_recipient())
        self._refused = not await self._act("mail", "250 sender ok")

    async def _on_rcpt(self, line: str) -> None:
        recipient = _address(line)
        if self._server.login and self._login is None:
            await self._say("530 5.7.0 authentication required")
            return
        self._server.attempts[recipient] += 1
        if not self._steps and "PIPELINING" not in self._server.extensions:
            self._steps = self._next_steps(recipient)
        if self._refused:
            await self._say("503 no sender")
        elif await self._act("rcpt", "250 recipient ok"):
            self._recipient = recipient

    async def _on_data(self, line: str) -> None:
        if not self._recipient:
            await self._say("554 no valid recipients")
            return
        if not await self._act("data", "354 go on"):
            return
        if self._steps.get("content") == HANG_UP_BEFORE_DOT:
            await self._reader.readuntil(b"\r\n")
            raise _HungUp
        if self._steps.get("content") == STOP_READING:
            await asyncio.Event().wait()
        content = await self._read_content()
        self._take(content)
        await asyncio.sleep(self._server.dot_delay_s)
        await self._act("content", f"250 2.0.0 taken as {len(self._server.received)}")

    async def _read_content(self) -> bytes:
        lines = []
        while (line := await self._reader.readuntil(b"\r\n")) != b".\r\n":
            lines.append(line[1:] if line.startswith(b".") else line)
            if self._server.read_delay_s and len(lines) % 2000 == 0:
                await asyncio.sleep(self._server.read_delay_s)
        return b"".join(lines)

    def _take(self, content: bytes) -> None:
        # A refusal after the dot means that the mail was not taken; a lost answer means that it was.
        if self._steps.get("content", "250")[0] in "45":
            return
        self._taken += 1
        self._server.received.append(
            ReceivedMail(self._sender, self._recipient, content, self._tls, self._login, self._number)
        )

    async def _peek_recipient(self) -> str:
        if "PIPELINING" not in self._server.extensions:
            return ""
        self._ahead = (await self._reader.readuntil(b"\r\n")).decode().rstrip()
        return _address(self._ahead)

    def _next_steps(self, recipient: str) -> dict[Stage, str]:
        steps = self._server.scripts[recipient]
        step = steps.pop(0) if steps else None
        return {step.stage: step.answer} if step else {}


def _address(line: str) -> str:
    return line.partition("<")[2].partition(">")[0]


@asynccontextmanager
async def running(server: SmtpServer | None = None) -> AsyncIterator[SmtpServer]:
    """Run `server` for the length of the block."""
    server = server or SmtpServer()
    await server.start()
    try:
        yield server
    finally:
        await server.stop()
