"""Acceptance: mails and tasks accepted a second while they are worked off, against a commit for each."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import httpx
import orjson

from benchmarks.load import Load, measure, median
from native.ports import HOST, Ports
from native.services import GATEWAY
from native.stack import Stack
from support.waiting import until

BODIES = {
    "/v1/emails": {"to": ["ann@example.com"], "subject": "Hello", "text": "It works."},
    "/v1/tasks": {"operation": "echo", "payload": {"n": 1}},
}


@dataclass(frozen=True)
class Rates:
    """Medians of the rounds of one run: with commits that are shared, and with a commit for each request."""

    shared: Load
    single: Load


async def compare(stack: Stack, *, rounds: int = 3, seconds: int = 4) -> dict[str, Rates]:
    """Measure both gateways in turns, so that noise of the machine falls on both."""
    headers = {"Authorization": f"Bearer {stack.api_key}", "Content-Type": "application/json"}
    found: dict[str, Rates] = {}
    async with single_commits(stack) as single:
        for path, body in BODIES.items():
            rates: dict[str, list[Load]] = {stack.url: [], single: []}
            for url in [*rates] * rounds:
                load = await measure(url + path, seconds=seconds, headers=headers, body=orjson.dumps(body))
                rates[url].append(load)
            found[path] = Rates(*(median(values) for values in rates.values()))
    return found


@asynccontextmanager
async def single_commits(stack: Stack) -> AsyncIterator[str]:
    """Run a second gateway on the servers of `stack`; yield its address."""
    ports = Ports.free()
    environment = stack.blueprint.backing.environment(GATEWAY, ports)
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "benchmarks.peers.single_commits", env={**_paths(), **environment}
    )
    url = f"http://{HOST}:{ports.gateway}"
    try:
        async with httpx.AsyncClient() as client:

            async def is_ready() -> bool:
                try:
                    return (await client.get(f"{url}/healthz")).status_code == 200
                except httpx.TransportError:
                    return False

            await until(is_ready, timeout_s=60, what=lambda: "the second gateway is ready")
        yield url
    finally:
        process.terminate()
        await process.wait()


def _paths() -> dict[str, str]:
    return {"PYTHONPATH": ":".join(path for path in sys.path if path)}
