"""A receiver of webhooks on loopback: it keeps every request, and answers as it is told."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import orjson

from support.waiting import until


@dataclass(frozen=True)
class ReceivedRequest:
    """A request: its headers with names in lower case, and its body."""

    headers: Mapping[str, str]
    body: bytes

    @property
    def type(self) -> str:
        return str(orjson.loads(self.body)["type"])


@dataclass(frozen=True)
class Told:
    """An answer; `after_s` seconds pass before it, and without a status the connection ends in its place."""

    status: int | None = 204
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    after_s: float = 0


@dataclass
class RequestReceiver:
    """Answers with what `script` has next, and then as `usual`."""

    port: int = 0
    usual: Told = field(default_factory=Told)
    script: list[Told] = field(default_factory=list)
    requests: list[ReceivedRequest] = field(default_factory=list)
    at_once: int = 0
    most_at_once: int = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/hook"

    async def received(self, count: int, *, timeout_s: float = 20) -> list[ReceivedRequest]:
        """Return the requests once there are `count`."""
        await until(lambda: len(self.requests) >= count, timeout_s=timeout_s, what=self._what)
        return self.requests

    def _what(self) -> str:
        return f"requests at the receiver, there were {[one.type for one in self.requests]}"

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
            fields = (line.partition(": ") for line in head[1:] if line)
            headers = {name.lower(): value for name, _, value in fields}
            body = await reader.readexactly(int(headers["content-length"]))
            self.requests.append(ReceivedRequest(headers, body))
            told = self.script.pop(0) if self.script else self.usual
            await asyncio.sleep(told.after_s)
            if told.status is None:
                return
            lines = [f"HTTP/1.1 {told.status} Told", f"content-length: {len(told.body)}", "connection: close"]
            lines += [f"{name}: {value}" for name, value in told.headers.items()]
            writer.write("\r\n".join([*lines, "", ""]).encode() + told.body)
            await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass  # the sender had no more patience
        finally:
            self.at_once -= 1
            writer.close()


@asynccontextmanager
async def receiver(usual: Told | None = None) -> AsyncIterator[RequestReceiver]:
    """Run a receiver until the end of the block."""
    made = RequestReceiver(usual=usual or Told())
    server = await asyncio.start_server(made.serve, "127.0.0.1", 0)
    made.port = server.sockets[0].getsockname()[1]
    try:
        yield made
    finally:
        server.close()
