"""The whole product on private servers, with a fault proxy before each of them and a scripted relay."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import aiormq
import asyncpg
import httpx

from contracts.topology import SERVICES, TOPOLOGIES, parked_queue
from faults import proxy as proxies
from faults.proxy import FaultProxy
from native import stack as native_stack
from native.ports import Ports
from native.postgres import DATABASES
from native.services import SERVICES as SERVICES_OF_STACK
from native.stack import Stack
from support import high_limits
from support.doubles import alpaca, smtp
from support.doubles.smtp import SmtpServer

SERVERS = ("rabbitmq", "postgres", "memcached", "mailbox_smtp")
PROVIDER = "provider"

# Patience in seconds instead of minutes: what is proven is that it is kept, not how long it is.
VARIABLES = {
    # Guests send ten times what other bounds allow, and must meet those.
    **high_limits.RATE_LIMITS,
    "EMAIL_LEASE_S": "6",
    "EMAIL_RETRY_SCALE": "0.02",
    "EMAIL_ROUTE_PAUSE_S": "0.2",
    "EMAIL_SMTP_TIMEOUT_S": "5",
    "BATCH_PROCESSOR_LEASE_S": "6",
    "SHUTDOWN_GRACE_S": "15",
}
_QUEUES = [q.name for t in TOPOLOGIES.values() for q in t.queues if not q.auto_delete]


@dataclass
class Rig:
    """A running stack, the proxies in front of its servers by name, and the relay that takes its mail."""

    stack: Stack
    proxies: Mapping[str, FaultProxy]
    relay: SmtpServer
    urls: list[str]

    @property
    def headers(self) -> dict[str, str]:
        """Return the headers of a request of the administrator."""
        return {"Authorization": f"Bearer {self.stack.api_key}"}

    def client(self, *, timeout_s: float = 60) -> httpx.AsyncClient:
        """Return a client of the first gateway."""
        limits = httpx.Limits(max_connections=100, keepalive_expiry=20)
        return httpx.AsyncClient(
            base_url=self.urls[0], headers=self.headers, timeout=timeout_s, limits=limits
        )

    async def reasons(self, service: str) -> dict[str, str]:
        """Return why a service is not ready; nothing when it is. A silent one is a reason too."""
        try:
            async with httpx.AsyncClient(timeout=5) as client:
                answer = await client.get(f"{self.stack.ops_url(service)}/readyz")
        except httpx.HTTPError as error:
            return {"silent": repr(error)}
        found: dict[str, str] = answer.json()["reasons"]
        return found

    async def metric(self, service: str, name: str) -> float:
        """Return the sum of a metric over its labels."""
        async with httpx.AsyncClient(timeout=5) as client:
            text = (await client.get(f"{self.stack.ops_url(service)}/metrics")).text
        lines = [line for line in text.splitlines() if line.startswith((f"{name} ", f"{name}{{"))]
        return sum(float(line.split(" # ")[0].rsplit(" ", 1)[1]) for line in lines)

    async def unready(self) -> dict[str, dict[str, str]]:
        """Return the services that are not ready, with their reasons."""
        found = {service: await self.reasons(service) for service in SERVICES}
        return {service: reasons for service, reasons in found.items() if reasons}

    async def depths(self, *names: str) -> dict[str, int]:
        """Return how many messages wait in the durable queues of `names`, or in all that hold any."""
        connection = await aiormq.connect(self.stack.rabbitmq.url)
        try:
            channel = await connection.channel()
            wanted = names or (
                *_QUEUES,
                *(rung.queue for topology in TOPOLOGIES.values() for rung in topology.rungs),
            )
            counts = {
                name: (await channel.queue_declare(name, passive=True)).message_count for name in wanted
            }
        finally:
            await connection.close()
        return {name: count or 0 for name, count in counts.items() if count or names}

    async def parked(self) -> dict[str, int]:
        """Return the number of messages each service has parked, in its queue and in its table, if any."""
        found = await self.depths(*(parked_queue(service) for service in SERVICES))
        for database, service in zip(DATABASES, SERVICES, strict=True):
            rows = await self._kept(database, "SELECT count(*) FROM parked WHERE state = 'parked'")
            found[parked_queue(service)] += rows
        return {name: count for name, count in found.items() if count}

    async def forget_parked(self) -> None:
        """Discard all parked messages."""
        for database in DATABASES:
            await self._kept(database, "DELETE FROM parked")

    async def _kept(self, database: str, statement: str) -> int:
        connection = await asyncpg.connect(self.stack.postgres.dsn(database))
        try:
            return int(await connection.fetchval(statement) or 0)
        finally:
            await connection.close()

    async def calm(self) -> None:
        """End every fault."""
        for proxy in self.proxies.values():
            await proxy.recover()
        self.relay.delay_s = 0
        self.relay.scripts.clear()

    async def recovered(self, *, timeout_s: float = 90) -> float:
        """Wait until all services are ready and a mail accepted now is delivered; gives the seconds."""
        started = time.monotonic()
        end = started + timeout_s
        while unready := await self.unready():
            _require_time(end, f"not ready: {unready}")
            await asyncio.sleep(0.1)
        async with self.client() as client:
            await self._canary(client, end)
        return time.monotonic() - started

    async def _canary(self, client: httpx.AsyncClient, end: float) -> None:
        body = {"to": ["canary@example.com"], "subject": "canary", "text": "still singing"}
        answer = await client.post("/v1/emails", json=body)
        while answer.status_code != 202:
            _require_time(end, answer.text)
            await asyncio.sleep(0.2)
            answer = await client.post("/v1/emails", json=body)
        location = answer.headers["location"]
        email: dict[str, Any] = {}
        while email.get("status") != "delivered":
            _require_time(end, f"canary {email}")
            await asyncio.sleep(0.1)
            email = (await client.get(location)).json()


def _require_time(end: float, what: str) -> None:
    if time.monotonic() > end:
        raise AssertionError(f"did not recover in time: {what}")


@asynccontextmanager
async def running(directory: Path, **options: Any) -> AsyncIterator[Rig]:
    """Run a rig in `directory` for the length of the block; `options` go to `native.stack.start`."""
    async with (
        _proxied(Ports.free()) as (ports, fronts, relay),
        native_stack.start(directory, **_options(ports, fronts, options)) as stack,
    ):
        yield Rig(stack, fronts, relay, [stack.url])


@asynccontextmanager
async def with_provider(directory: Path) -> AsyncIterator[Rig]:
    """Run a rig whose prices come from one outside provider, with a proxy before it as well."""
    async with (
        alpaca.running() as provider,
        proxies.running(provider.port) as front,
        running(directory, variables=_only(f"http://127.0.0.1:{front.port}")) as rig,
    ):
        provider.bars["AAPL"] = [alpaca.bar(f"2013-01-{day:02}T05:00:00Z") for day in (2, 3, 4)]
        provider.snapshots["AAPL"] = alpaca.snapshot(11)
        yield replace(rig, proxies={**rig.proxies, PROVIDER: front})


def _only(url: str) -> dict[str, str]:
    return {
        "STOCK_DATA_PROVIDERS": "alpaca",
        "STOCK_DATA_ALPACA_URL": url,
        "STOCK_DATA_ALPACA_KEY_ID": alpaca.KEY_ID,
        "STOCK_DATA_ALPACA_SECRET_KEY": alpaca.SECRET,
    }


@asynccontextmanager
async def waiting_for(directory: Path) -> AsyncIterator[Rig]:
    """Run a rig whose services find no server: every proxy refuses. They are not waited for."""
    async with AsyncExitStack() as opened:
        ports, fronts, relay = await opened.enter_async_context(_proxied(Ports.free()))
        for front in fronts.values():
            await front.refuse()
        # Starts the servers only; then the services, which come up without being ready.
        stack = await opened.enter_async_context(
            native_stack.start(directory, **_options(ports, fronts, {"services": ()}))
        )
        programs = [stack.blueprint.backing.program(service) for service in SERVICES_OF_STACK]
        starts = [asyncio.create_task(stack.supervisor.add(program).start()) for program in programs]
        try:
            yield Rig(stack, fronts, relay, [stack.url])
        finally:
            for start in starts:
                start.cancel()
            await asyncio.gather(*starts, return_exceptions=True)


@asynccontextmanager
async def _proxied(ports: Ports) -> AsyncIterator[tuple[Ports, dict[str, FaultProxy], SmtpServer]]:
    async with AsyncExitStack() as opened:
        relay = await opened.enter_async_context(smtp.running())
        targets = {**{name: getattr(ports, name) for name in SERVERS}, "mailbox_smtp": relay.port}
        fronts = {
            name: await opened.enter_async_context(proxies.running(port)) for name, port in targets.items()
        }
        yield ports, fronts, relay


def _options(ports: Ports, fronts: Mapping[str, FaultProxy], options: Mapping[str, Any]) -> dict[str, Any]:
    return {
        **options,
        "ports": ports,
        "without": ("prometheus", "mailbox"),
        "via": {name: proxy.port for name, proxy in fronts.items()},
        "variables": VARIABLES | options.get("variables", {}),
    }
