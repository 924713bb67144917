"""A double of Prometheus' HTTP API over real sockets, for failures that a real one does not produce."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, urlsplit

EMPTY = {"resultType": "matrix", "result": [], "alerts": []}


@dataclass
class Double:
    """Answers every query with `data`, or with `body` unchanged, and records the queries."""

    url: str = ""
    status: int = 200
    data: Any = field(default_factory=lambda: dict(EMPTY))
    body: bytes | None = None
    asked: list[dict[str, str]] = field(default_factory=list)
    go: asyncio.Event = field(default_factory=asyncio.Event)
    busy: int = 0
    most_busy: int = 0

    def answer(self) -> bytes:
        body = (
            json.dumps({"status": "success", "data": self.data}).encode() if self.body is None else self.body
        )
        head = f"HTTP/1.1 {self.status} Whatever\r\ncontent-length: {len(body)}\r\nconnection: close\r\n\r\n"
        return head.encode() + body

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            target = urlsplit(head.split(" ")[1])
            asked = {name: values[0] for name, values in parse_qs(target.query).items()}
            self.asked.append({"path": target.path, **asked})
            self.busy += 1
            self.most_busy = max(self.most_busy, self.busy)
            await self.go.wait()
            writer.write(self.answer())
            await writer.drain()
        except OSError:
            return  # who asked has given up
        finally:
            self.busy -= 1
            writer.close()


@asynccontextmanager
async def start() -> AsyncIterator[Double]:
    """Run a double on a free port until the end of the block; it answers at once unless `go` is cleared."""
    double = Double()
    double.go.set()
    server = await asyncio.start_server(double.serve, "127.0.0.1", 0)
    double.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield double
    finally:
        double.go.set()
        server.close()
