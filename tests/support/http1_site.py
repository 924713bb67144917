"""A server on loopback whose application answers, reads, waits, streams and fails as its paths say."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import orjson

from chassis import asgi
from chassis.http1.admission import mark_authenticated
from chassis.http1.limits import ConnectionLimits
from chassis.http1.refusals import AnswerCut
from support.waiting import until

GET = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"


@dataclass
class RecordedEvents:
    """The requests and events that the application received."""

    scopes: list[Any] = field(default_factory=list)
    ends: list[str] = field(default_factory=list)
    sent_bytes: int = 0
    may_read: asyncio.Event = field(default_factory=asyncio.Event)


@dataclass
class Http1Site:
    """A server on loopback, and a record of what its application received."""

    port: int
    recorded: RecordedEvents
    server: Any

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection("127.0.0.1", self.port)

    async def exchange(self, *segments: bytes) -> bytes:
        """Return all bytes that the server sends in answer to `segments`, until it closes."""
        reader, writer = await self.connect()
        try:
            for segment in segments:
                writer.write(segment)
                await writer.drain()
            async with asyncio.timeout(20):
                return await reader.read()
        finally:
            writer.close()


def problem_of(answer: bytes) -> dict[str, Any]:
    head, _, body = answer.partition(b"\r\n\r\n")
    assert b"content-type: application/problem+json\r\n" in head + b"\r\n"
    assert b"connection: close\r\n" in head
    assert b"x-content-type-options: nosniff" in head
    found: dict[str, Any] = orjson.loads(body)
    assert b"x-request-id: %b" % found["instance"].encode() in head
    assert b"\r\ntraceparent: 00-" in head
    assert head.startswith(b"HTTP/1.1 %d " % found["status"])
    return found


def application(recorded: RecordedEvents) -> Callable[..., Awaitable[None]]:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            await _live(receive, send)
            return
        recorded.scopes.append(scope)
        try:
            await ROUTES[scope["path"]](scope, receive, send, recorded)
        except asyncio.CancelledError:
            recorded.ends.append("cancelled")
            raise

    return app


async def _live(receive: Any, send: Any) -> None:
    for _ in range(2):
        message = await receive()
        await send({"type": f"{message['type']}.complete"})


async def _answer(send: Any, body: bytes = b"ok", status: int = 200) -> None:
    headers = [(b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def index(scope: Any, receive: Any, send: Any, recorded: RecordedEvents) -> None:
    await _answer(send)


async def key(scope: Any, receive: Any, send: Any, recorded: RecordedEvents) -> None:
    mark_authenticated(scope, "somebody")
    await _answer(send)


async def read(scope: Any, receive: Any, send: Any, recorded: RecordedEvents) -> None:
    size, has_more = 0, True
    while has_more:
        message = await receive()
        if message["type"] == "http.disconnect":
            recorded.ends.append("disconnected")
            return
        size, has_more = size + len(message["body"]), message["more_body"]
    await _answer(send, b"%d" % size)


async def read_late(scope: Any, receive: Any, send: Any, recorded: RecordedEvents) -> None:
    await recorded.may_read.wait()
    await read(scope, receive, send, recorded)


async def refuse(scope: Any, receive: Any, send: Any, recorded: RecordedEvents) -> None:
    await _answer(send, b"no", status=401)


async def wait(scope: Any, receive: Any, send: Any, recorded: RecordedEvents) -> None:
    while (await receive())["type"] != "http.disconnect":
        continue
    recorded.ends.append("disconnected")


async def pour(scope: Any, receive: Any, send: Any, recorded: RecordedEvents) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    for _ in range(400):
        await send({"type": "http.response.body", "body": b"x" * 65_536, "more_body": True})
        recorded.sent_bytes += 65_536
    await send({"type": "http.response.body"})


async def stream(scope: Any, receive: Any, send: Any, recorded: RecordedEvents) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    for part in (b"one", b"", b"two"):
        await send({"type": "http.response.body", "body": part, "more_body": True})
    await send({"type": "http.response.body"})


async def fail(scope: Any, receive: Any, send: Any, recorded: RecordedEvents) -> None:
    raise ValueError("by design")


async def fail_late(scope: Any, receive: Any, send: Any, recorded: RecordedEvents) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"begun", "more_body": True})
    raise ValueError("by design")


async def cut(scope: Any, receive: Any, send: Any, recorded: RecordedEvents) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"begun", "more_body": True})
    raise AnswerCut("slow_reader", "Others wait.")


async def inject(scope: Any, receive: Any, send: Any, recorded: RecordedEvents) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": [(b"a", b"b\r\nc: d")]})


async def silent(scope: Any, receive: Any, send: Any, recorded: RecordedEvents) -> None:
    return


ROUTES: dict[str, Callable[..., Awaitable[None]]] = {
    "/": index,
    "/key": key,
    "/read": read,
    "/read-late": read_late,
    "/refuse": refuse,
    "/wait": wait,
    "/pour": pour,
    "/stream": stream,
    "/fail": fail,
    "/fail-late": fail_late,
    "/cut": cut,
    "/inject": inject,
    "/silent": silent,
    "/a%2Fb c": index,
}


@asynccontextmanager
async def serving(limits: ConnectionLimits) -> AsyncIterator[Http1Site]:
    recorded = RecordedEvents()
    listener = asgi.Listener(application(recorded), "127.0.0.1", 0, limits=limits)
    server = asgi.create_server(listener, lifespan=True, grace_s=2)
    running = asyncio.create_task(server.serve())
    await until(lambda: server.started or running.done())
    try:
        yield Http1Site(server.servers[0].sockets[0].getsockname()[1], recorded, server)
    finally:
        recorded.ends.append("closed")
        server.should_exit = True
        await running
