"""Measure how many mails and tasks are accepted a second while they are processed, and how fast they end.

Beside it runs the same gateway with a commit for each request. Tasks are measured beside Celery, too.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

import asyncpg
import orjson

from benchmarks.load import LoadResult, measure, median
from benchmarks.programs import answering, cpu_s, python
from native.ports import HOST, Ports
from native.services import GATEWAY
from native.stack import Stack
from support.waiting import until

_DRAINED_S = 120
_LOOK_S = 0.1


@dataclass(frozen=True)
class Kind:
    """Work that is accepted at `path`; the query `done` counts in `database` what `service` has done."""

    path: str
    body: dict[str, object]
    service: str
    database: str
    done: str


MAILS = Kind(
    "/v1/emails",
    {"to": ["ann@example.com"], "subject": "Hello", "text": "It works."},
    "email",
    "emailer",
    "SELECT count(*) FROM attempts WHERE outcome = 'delivered'",
)
TASKS = Kind(
    "/v1/tasks",
    {"operation": "echo", "payload": {"n": 1}},
    "batch-processor",
    "batch_processor",
    "SELECT count(*) FROM batches WHERE kind = 'task' AND status = 'completed'",
)


@dataclass(frozen=True)
class AcceptanceRates:
    """Medians of the rounds of one run.

    `shared` and `single` are what a gateway accepts whose commits are shared, and one with a commit for each
    request. `meanwhile` is what was done of `shared` in the same seconds, with the CPU of the service, and
    `done` the rate of all of it, from the first request to the last outcome, with the CPU of both.
    """

    shared: LoadResult
    single: LoadResult
    meanwhile: LoadResult
    done: LoadResult


async def compare(
    stack: Stack, kind: Kind, *, say: Callable[[str], None], rounds: int = 3, seconds: int = 4
) -> AcceptanceRates:
    """Measure both gateways in turns, each when the work of the other is done."""
    found: dict[str, list[LoadResult]] = {name: [] for name in ("shared", "single", "meanwhile", "done")}
    async with single_commits(stack) as single, _Counts.of(stack, kind) as counts:
        for number in range(rounds):
            say(f"{kind.path}, round {number + 1} of {rounds}")
            accepted, meanwhile, done = await _turn(stack, kind, counts, url=stack.url, seconds=seconds)
            found["shared"].append(accepted)
            found["meanwhile"].append(meanwhile)
            found["done"].append(done)
            accepted, *_ = await _turn(stack, kind, counts, url=single, seconds=seconds)
            found["single"].append(accepted)
    return AcceptanceRates(**{name: median(loads) for name, loads in found.items()})


async def _turn(
    stack: Stack, kind: Kind, counts: _Counts, *, url: str, seconds: int
) -> tuple[LoadResult, LoadResult, LoadResult]:
    """Return the rates of acceptance, of the work done meanwhile, and of all work until the end."""
    headers = {"Authorization": f"Bearer {stack.api_key}", "Content-Type": "application/json"}
    pids = [stack.pids[name] for name in ("gateway", kind.service)]
    service_before = cpu_s([stack.pids[kind.service]])
    before, cpu_before, started = await counts.done(), cpu_s(pids), time.perf_counter()
    accepted = await measure(url + kind.path, seconds=seconds, headers=headers, body=orjson.dumps(kind.body))
    meanwhile = await counts.done() - before
    loaded_s, service_s = time.perf_counter() - started, cpu_s([stack.pids[kind.service]]) - service_before
    await until(counts.is_drained, timeout_s=_DRAINED_S, what=lambda: f"everything at {kind.path} is done")
    drained_s = time.perf_counter() - started
    count = await counts.done() - before
    done = LoadResult(count / drained_s, 1e6 * (cpu_s(pids) - cpu_before) / count)
    return accepted, LoadResult(meanwhile / loaded_s, 1e6 * service_s / max(1, meanwhile)), done


@dataclass(frozen=True)
class _Counts:
    """The numbers of accepted and finished pieces of work in the databases."""

    kind: Kind
    gateway: asyncpg.Connection[asyncpg.Record]
    service: asyncpg.Connection[asyncpg.Record]

    @classmethod
    @asynccontextmanager
    async def of(cls, stack: Stack, kind: Kind) -> AsyncIterator[_Counts]:
        gateway = await asyncpg.connect(stack.postgres.dsn("gateway"))
        try:
            service = await asyncpg.connect(stack.postgres.dsn(kind.database))
            try:
                yield cls(kind, gateway, service)
            finally:
                await service.close()
        finally:
            await gateway.close()

    async def done(self) -> int:
        return int(await self.service.fetchval(self.kind.done))

    async def is_drained(self) -> bool:
        accepted = "SELECT count(*) FROM acceptances WHERE kind = $1"
        name = "task" if self.kind is TASKS else "email"
        if await self.done() >= int(await self.gateway.fetchval(accepted, name)):
            return True
        # To count takes time that the services could use.
        await asyncio.sleep(_LOOK_S)
        return False


@asynccontextmanager
async def single_commits(stack: Stack) -> AsyncIterator[str]:
    """Run a second gateway on the servers of `stack`; yield its address."""
    ports = Ports.free()
    environment = stack.blueprint.backing.environment(GATEWAY, ports)
    async with python("-m", "benchmarks.peers.single_commits", **environment):
        url = f"http://{HOST}:{ports.gateway}"
        await answering(f"{url}/healthz")
        yield url
