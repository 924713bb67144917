"""The parts that every step of the tour uses: the stack, the console, and functions that wait."""

from __future__ import annotations

import asyncio
import json
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx
import websockets
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from native.errors import DemoError

ENDED = ("completed", "failed", "cancelled", "expired")
PATIENCE_S = 30.0

Json = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Tour:
    """The stack that the tour walks through, and the console that it prints to."""

    api: httpx.AsyncClient
    mailbox: httpx.AsyncClient
    key: str
    console: Console
    # Where the gateway can reach a server of the demo on loopback, if it can.
    receiver_port: int | None = None
    # Every run uses its own addresses and rooms, so that it sees only its own data.
    run: str = field(default_factory=lambda: secrets.token_hex(3))

    def say(self, text: str) -> None:
        """Print one line below the title of a step."""
        self.console.print(f"   {text}", highlight=False, markup=False, soft_wrap=True)

    async def get(self, path: str, **parameters: str) -> Json:
        """Return the JSON answer of a GET."""
        return answer(await self.api.get(path, params=parameters))

    async def post(self, path: str, body: Json | None = None) -> Json:
        """Return the JSON answer of a POST."""
        return answer(await self.api.post(path, json=body))

    def progress(self, unit: str, *, is_endless: bool = False) -> Progress:
        """Return a progress bar that counts `unit`."""
        columns = (
            TextColumn("  "),
            BarColumn(40),
            TextColumn("{task.completed}") if is_endless else MofNCompleteColumn(),
            TextColumn(unit),
            TimeElapsedColumn(),
        )
        return Progress(*columns, console=self.console)

    @asynccontextmanager
    async def socket(self) -> AsyncIterator[websockets.ClientConnection]:
        """Open the realtime connection."""
        address = str(self.api.base_url).rstrip("/").replace("http", "ws", 1) + "/v1/realtime"
        async with websockets.connect(address, proxy=None) as connection:
            await connection.send(json.dumps({"id": 1, "connect": {"token": self.key}}))
            await frame(connection, "connect")
            yield connection


async def until(ask: Callable[[], Awaitable[Json | None]]) -> Json:
    """Return the first answer of `ask` that is not None."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            if (found := await ask()) is not None:
                return found
            await asyncio.sleep(0.1)


async def frame(connection: websockets.ClientConnection, kind: str) -> Json:
    """Return the next frame of a kind; raise when it is an error."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            heard = json.loads(await connection.recv())
            if "error" in heard:
                raise DemoError(f"{heard['error'].get('code')}: {heard['error'].get('message')}")
            if kind in heard:
                return dict(heard[kind])


def answer(response: httpx.Response) -> Json:
    """Return the JSON of a response; raise `DemoError` with its problem details if it is an error."""
    if response.is_success:
        return dict(response.json())
    problem = response.json() if "json" in response.headers.get("content-type", "") else {}
    detail = problem.get("detail") or response.text[:200]
    raise DemoError(
        f"{response.request.method} {response.request.url.path}: HTTP {response.status_code} {detail}"
    )
