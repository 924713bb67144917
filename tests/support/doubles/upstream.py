"""The double of an upstream's HTTP API over real sockets, with every way in which one can fail."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import struct
from collections import deque
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar
from urllib.parse import parse_qs

import uvicorn

U = TypeVar("U", bound="UpstreamServer")

_PART = 1 << 20


@dataclass(frozen=True)
class UpstreamAnswer:
    """One HTTP answer. `cut` announces more bytes than it sends, `reset` sends none and resets instead."""

    body: bytes
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    delay_s: float = 0
    cut: bool = False
    reset: bool = False


def answer_json(value: Any, status: int = 200, **headers: str) -> UpstreamAnswer:
    named = {name.replace("_", "-"): text for name, text in headers.items()}
    return UpstreamAnswer(json.dumps(value).encode(), status, {"content-type": "application/json", **named})


BROKEN = answer_json({"message": "internal server error"}, 500)
UNAVAILABLE = UpstreamAnswer(b"<html>503 Service Unavailable</html>", 503, {"content-type": "text/html"})
PAGE = UpstreamAnswer(b"<!DOCTYPE html><html>Just a moment...</html>", 200, {"content-type": "text/html"})
PAGE_AS_JSON = UpstreamAnswer(b"<!DOCTYPE html><html></html>", 200, {"content-type": "application/json"})
TRUNCATED = UpstreamAnswer(
    b'{"data":[{"t":"2024-01-02T05:00:00Z","o":1', 200, {"content-type": "application/json"}
)
ENDLESS = UpstreamAnswer(b" " * (9 << 20), 200, {"content-type": "application/json"})
RESET = UpstreamAnswer(b"", reset=True)
CUT = UpstreamAnswer(b'{"data":', 200, {"content-type": "application/json"}, cut=True)
REDIRECT = UpstreamAnswer(b"", 302, {"location": "https://login.example/"})


@dataclass(frozen=True)
class SeenRequest:
    """A request that arrived."""

    path: str
    query: dict[str, str]
    headers: dict[str, str]


class UpstreamServer:
    """A server whose `answer` speaks the protocol of one upstream: derive a class from it.

    Answers put into `script` are given first, one a request; `always` is given to every request after them,
    and those of `answers` to every request for their path.
    """

    def __init__(self) -> None:
        self.url = ""
        self.server: uvicorn.Server | None = None
        self.forget()

    def forget(self) -> None:
        """Reset: no data, no script, no recorded requests."""
        self.script: deque[UpstreamAnswer] = deque()
        self.always: UpstreamAnswer | None = None
        self.answers: dict[str, UpstreamAnswer] = {}
        self.seen: list[SeenRequest] = []

    def answer(self, seen: SeenRequest) -> UpstreamAnswer:
        """Return the answer that the upstream's documentation promises for a request."""
        raise NotImplementedError  # abstract

    @property
    def port(self) -> int:
        """The port of the server."""
        return int(self.url.rsplit(":", 1)[1])

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        assert scope["type"] == "http"
        query = {name: values[-1] for name, values in parse_qs(scope["query_string"].decode()).items()}
        headers = {name.decode(): value.decode() for name, value in scope["headers"]}
        seen = SeenRequest(scope["path"], query, headers)
        self.seen.append(seen)
        usual = self.always or self.answers.get(seen.path)
        answer = self.script.popleft() if self.script else usual or self.answer(seen)
        await asyncio.sleep(answer.delay_s)
        if answer.reset:
            self._reset_connections()
            return
        await _send(send, answer)

    def _reset_connections(self) -> None:
        assert self.server is not None
        for connection in list(self.server.server_state.connections):
            transport = connection.transport
            raw = transport.get_extra_info("socket")
            # With a linger time of 0 closing sends RST instead of FIN.
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            transport.abort()


async def _send(send: Any, answer: UpstreamAnswer) -> None:
    length = len(answer.body) + (1000 if answer.cut else 0)
    headers = {"content-length": str(length), **answer.headers}
    encoded = [(name.encode(), value.encode()) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": answer.status, "headers": encoded})
    # In parts, each behind the one before: a server that has all of it in hand moves all of it for each.
    for start in range(0, len(answer.body), _PART):
        part = answer.body[start : start + _PART]
        await send({"type": "http.response.body", "body": part, "more_body": True})
        # The server learns only now that the other side has hung up, and passes over the rest. Without this
        # it wrote all of it to a connection that was lost, and asyncio warned of each part.
        await asyncio.sleep(0)
    await send({"type": "http.response.body"})


class _UpstreamServer(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


@asynccontextmanager
async def listening(double: U) -> AsyncIterator[U]:
    """Let `double` listen on a free port of the loopback for the length of the block."""
    config = uvicorn.Config(
        double,
        host="127.0.0.1",
        port=0,
        lifespan="off",
        ws="none",
        http="h11",
        log_config=None,
        log_level="critical",
    )
    double.server = server = _UpstreamServer(config)
    task = asyncio.create_task(server.serve())
    try:
        while not server.started:
            assert not task.done(), task
            await asyncio.sleep(0.01)
        double.url = f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
        yield double
    finally:
        server.should_exit = server.force_exit = True
        await task
