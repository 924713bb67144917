"""Measure how long ten items take from HTTP to their results beside what another owner has at work.

That owner has a key of its own and gives by HTTP: a batch of a million lines, 160 items of 6 s, 5,000 tasks
of 0.2 s, and items that kill their processes. The same ten items are measured alone first.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import asyncpg
import httpx

from benchmarks.measures import Wait
from native.stack import Stack
from support.waiting import until

_ROUNDS = 10
_LOOK_S = 0.01
_PAUSE_S = 0.2
_DEADLINE_S = 120
_SENDERS = 16
_CHUNK_LINES = 20_000
_WANTED_S = 1.0


@dataclass(frozen=True)
class _Scene:
    """The two owners, and the database of the service, which says what the crowd has at work."""

    own: httpx.AsyncClient
    others: httpx.AsyncClient
    database: asyncpg.Connection[asyncpg.Record]

    @classmethod
    @asynccontextmanager
    async def of(cls, stack: Stack) -> AsyncIterator[_Scene]:
        database = await asyncpg.connect(stack.postgres.dsn("batch_processor"))
        headers = {"Authorization": f"Bearer {stack.api_key}"}
        try:
            async with httpx.AsyncClient(base_url=stack.url, headers=headers, timeout=_DEADLINE_S) as own:
                person = {"name": "Crowd", "email": "crowd@example.com"}
                user = (await own.post("/v1/users", json=person)).raise_for_status().json()
                wanted = {"name": "crowd", "scopes": ["batches:read", "batches:write"], "user_id": user["id"]}
                key = (await own.post("/v1/api-keys", json=wanted)).raise_for_status().json()["key"]
                headers = {"Authorization": f"Bearer {key}"}
                async with httpx.AsyncClient(
                    base_url=stack.url, headers=headers, timeout=_DEADLINE_S
                ) as others:
                    yield cls(own, others, database)
        finally:
            await database.close()

    async def ten_items_s(self) -> float:
        """Return the seconds from the request with ten items to the answer that all have succeeded."""
        began = time.perf_counter()
        request = {"operation": "echo", "items": list(range(10))}
        accepted = (await self.own.post("/v1/batches", json=request)).raise_for_status().json()
        while True:
            found = (await self.own.get(f"/v1/batches/{accepted['id']}")).raise_for_status().json()
            if found["status"] == "completed":
                assert found["counts"]["succeeded"] == 10, found
                return time.perf_counter() - began
            if time.perf_counter() - began > _DEADLINE_S:
                raise TimeoutError(f"ten items have not ended: {found['status']}")
            await asyncio.sleep(_LOOK_S)

    async def times(self, rounds: int) -> list[float]:
        """Return the seconds that ten items take, `rounds` times."""
        found = []
        for _ in range(rounds):
            found.append(await self.ten_items_s())
            await asyncio.sleep(_PAUSE_S)
        return found

    async def send(self, path: str, body: dict[str, Any], *, count: int) -> None:
        """Send the same request of the crowd `count` times."""
        left = iter(range(count))

        async def send() -> None:
            for _ in left:
                (await self.others.post(path, json=body)).raise_for_status()

        await asyncio.gather(*(send() for _ in range(_SENDERS)))

    async def upload(self, lines: int) -> None:
        """Upload a batch of the crowd."""

        async def body() -> AsyncIterator[bytes]:
            for start in range(0, lines, _CHUNK_LINES):
                yield b'{"payload":1}\n' * min(_CHUNK_LINES, lines - start)

        headers = {"Content-Type": "application/x-ndjson"}
        query = {"operation": "echo"}
        answer = await self.others.post("/v1/batches", params=query, headers=headers, content=body())
        answer.raise_for_status()

    async def is_at_work(self) -> bool:
        """Return whether items of the crowd run while others of it wait."""
        states = "SELECT array_agg(DISTINCT state::text) @> '{ready,running}' FROM chunks"
        return bool(await self.database.fetchval(states))

    async def clear(self) -> None:
        """Cancel what is left of the crowd."""
        left: list[tuple[str, dict[str, str]]] = [("batches", {}), ("tasks", {})]
        while left:
            kind, after = left.pop()
            query = {"created_after": "2000-01-01T00:00:00Z", **after}
            answer = await self.others.post(f"/v1/{kind}/cancel", params=query)
            following = answer.raise_for_status().json()["next_cursor"]
            if following is not None:
                left.append((kind, {"cursor": following}))
        empty = "SELECT count(*) = 0 FROM chunks"
        await until(lambda: self.database.fetchval(empty), timeout_s=_DEADLINE_S)

    async def beside(
        self, name: str, gather: Callable[[], Coroutine[Any, Any, None]], *, rounds: int
    ) -> list[float]:
        """Return the seconds that ten items take, `rounds` times, while a crowd is at work all along."""
        sending = asyncio.create_task(gather())
        try:
            await until(self.is_at_work, timeout_s=_DEADLINE_S, what=lambda: "the crowd is at work")
            found = await self.times(rounds)
            if not await self.is_at_work():
                raise RuntimeError(f"{name} ended too early")
            await sending
        finally:
            sending.cancel()
        await self.clear()
        return found


def _items(payload: float, count: int) -> dict[str, object]:
    return {"operation": "sleepy", "items": [payload] * count}


async def compare(stack: Stack, *, scale: float, say: Callable[[str], None]) -> list[Wait]:
    """Return the times of ten items beside each crowd; those of `sleepy` need its operation installed."""
    rounds = max(2, round(_ROUNDS * scale))
    lines, tasks = max(100_000, round(1_000_000 * scale)), max(500, round(5_000 * scale))
    task = {"operation": "sleepy", "payload": 0.2}
    async with _Scene.of(stack) as scene:
        crowds: dict[str, Callable[[], Coroutine[Any, Any, None]]] = {
            f"a batch of {lines:,} lines": lambda: scene.upload(lines),
            "160 items of 6 s": lambda: scene.send("/v1/batches", _items(6, 10), count=16),
            f"{tasks:,} tasks of 0.2 s": lambda: scene.send("/v1/tasks", task, count=tasks),
            "2,000 items that kill their processes": lambda: scene.send(
                "/v1/batches", _items(-1, 500), count=4
            ),
        }
        await scene.times(2)
        alone = await scene.times(rounds)
        found = []
        for name, gather in crowds.items():
            say(f"ten items beside {name}")
            times = await scene.beside(name, gather, rounds=rounds)
            found.append(Wait(f"ten items beside {name} of another owner", times, alone, _WANTED_S))
    return found
