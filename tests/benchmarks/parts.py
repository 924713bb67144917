"""The parts of the benchmark: each starts what it needs and returns its lines of the table."""

from __future__ import annotations

import asyncio
import os
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks import (
    acceptances,
    batches,
    dispatch,
    emails,
    fan_out,
    peer_queues,
    quotes,
    results,
    turns,
    uploads,
    urgent_mails,
)
from benchmarks.acceptances import MAILS, TASKS, AcceptanceRates
from benchmarks.latency import delayed
from benchmarks.letters import PLAIN, SIGNED
from benchmarks.load import LoadResult, median
from benchmarks.measures import Failed, Measure, Wait, attempt
from benchmarks.programs import sink
from benchmarks.servers import broker, database
from native import stack
from native.stack import Stack
from support import harmful_operation, high_limits


@dataclass(frozen=True)
class Report:
    """Takes the results of a part as soon as there are any, and the name of its next step."""

    add: Callable[[Measure | Wait], None]
    say: Callable[[str], None]


_ROUNDS = 3
# A peer that hangs does not keep the others from being measured.
_PEER_S = 120
CELERY_MAIL = "Celery, one connection a mail"


def _rounds(scale: float) -> int:
    return max(1, round(_ROUNDS * scale))


@asynccontextmanager
async def _stack(*services: str, **variables: str) -> AsyncIterator[Stack]:
    with tempfile.TemporaryDirectory(prefix="tickwire-bench-") as folder:
        without = ("mailbox", "prometheus")
        async with stack.start(
            Path(folder),
            services=services,
            without=without,
            variables={**high_limits.RATE_LIMITS, **variables},
        ) as running:
            yield running


async def measure_quotes(scale: float, report: Report) -> None:
    """Ask for quotes, beside a bare route and the usual pattern of asking over a broker."""
    async with _stack("gateway", "stock-data") as running:
        rates = await quotes.compare(running, rounds=_rounds(scale))
    name = "quotes, authenticated and metered"
    report.add(Measure(name, rates.gateway, "bare Quart route", rates.bare, 1))
    report.add(Measure(name, rates.gateway, "Quart + aio_pika RPC", rates.pattern, 5))


async def measure_mail_acceptances(scale: float, report: Report) -> None:
    """Accept mails by HTTP while they are delivered."""
    async with sink() as port, _stack("gateway", "email", EMAIL_SMTP_PORT=str(port)) as running:
        rates = await acceptances.compare(running, MAILS, say=report.say, rounds=_rounds(scale))
    report.add(_accepted("POST /v1/emails, accepted and worked off", rates))
    delivered = "mails delivered while HTTP accepts them"
    report.add(Measure(delivered, rates.meanwhile, "accepted meanwhile", rates.shared))


async def measure_tasks(scale: float, report: Report) -> None:
    """Accept single tasks by HTTP and do them, beside tasks that are sent to Celery."""
    rounds, seconds = _rounds(scale), 4
    async with _stack("gateway", "batch-processor") as running:
        rates = await acceptances.compare(running, TASKS, say=report.say, rounds=rounds, seconds=seconds)
        report.add(_accepted("POST /v1/tasks, accepted and worked off", rates))

        async def celery() -> LoadResult:
            async with peer_queues.worker("Celery", running.rabbitmq.url) as worker:
                return median(
                    [await peer_queues.celery_tasks(worker, seconds=seconds) for _ in range(rounds)]
                )

        report.say("Celery, confirmed one by one")
        theirs = await attempt(celery(), timeout_s=_PEER_S)
    name = "single tasks, from HTTP to durable result"
    report.add(Measure(name, rates.done, "Celery, confirmed, no HTTP, no result", theirs, None, 1_200))


def _accepted(name: str, rates: AcceptanceRates) -> Measure:
    return Measure(name, rates.shared, "a commit each", rates.single, 1.6, 1_200)


async def measure_batches(scale: float, report: Report) -> None:
    """Do the items of a batch, beside three task queues whose items do nothing."""
    name = "batch items with durable results"
    async with broker() as url:
        report.say("batch items")
        count = round(200_000 * scale)
        ours = await batches.echo_items_per_second(url, count=count, warm_up=count // 10)
        for peer in peer_queues.SENDERS:
            report.say(peer)
            measuring = peer_queues.items_per_second(peer, url, count=max(1, round(10_000 * scale)))
            theirs = await attempt(measuring, timeout_s=_PEER_S)
            report.add(Measure(name, ours.load, f"{peer}, no result", theirs, 10))
        report.say("Celery, 500 items a message")
        measuring = peer_queues.items_per_second("Celery", url, count=count, sender=peer_queues.CELERY_CHUNKS)
        theirs = await attempt(measuring, timeout_s=_PEER_S)
        report.add(Measure(name, ours.load, "Celery, 500 items a message, no outcome of an item", theirs))


async def measure_uploads(scale: float, report: Report) -> None:
    """Upload the lines of a large batch, and wait for their results."""
    lines = max(5, round(1_000_000 * scale))
    async with _stack("gateway", "batch-processor") as running:
        large, small = await uploads.compare(running, lines=lines)
    name = f"upload of {lines:,} lines, from HTTP to durable results ({large})"
    peer, mib = f"of {lines // 5:,} lines ({small})", max(large.most_mib.values())
    report.add(Measure(name, large.load, peer, small.load, 0.7, 80_000, mib=mib, most_mib=200))


async def measure_dispatch(scale: float, report: Report) -> None:
    """Find and claim chunks of very many that wait."""
    found = await dispatch.compare(scale=scale)
    name = f"dispatch of a chunk, at {found.batches:,} batches and {10 * found.batches:,} chunks"
    report.add(Wait(name, found.many, found.few, 0.005, share=0.5))


async def measure_turns(scale: float, report: Report) -> None:
    """Wait for ten items beside what another owner has at work."""
    with tempfile.TemporaryDirectory(prefix="tickwire-bench-") as folder:
        plugins = harmful_operation.install(Path(folder))
        tests = Path(harmful_operation.__file__).parents[1]
        path = os.pathsep.join(map(str, (plugins, tests, tests.parent / "deploy")))
        async with _stack("gateway", "batch-processor", PYTHONPATH=path) as running:
            for wait in await turns.compare(running, scale=scale, say=report.say):
                report.add(wait)


async def measure_emails(scale: float, report: Report) -> None:
    """Deliver mails to a sink: plain, signed, and over a way to the relay that takes time."""
    async with broker() as url, database("emailer") as dsn, sink() as port:
        await _near(url, dsn, port, scale, report)
        for delay_ms, connections, counts in ((5, 8, (3000, 600)), (50, 8, (400, 80)), (50, 64, (2500, 500))):
            name = f"mails, relay {delay_ms} ms away each way, {connections} connections"
            report.say(name)
            ours_count, their_count = (max(connections, round(count * scale)) for count in counts)
            async with delayed(port, delay_ms=delay_ms) as far:
                ours = await _far(url, dsn, far, connections=connections, count=ours_count)
                measuring = _celery_mails(url, threads=connections, smtp_port=far, count=their_count)
                theirs = await attempt(measuring, timeout_s=_PEER_S)
            report.add(Measure(name, ours, CELERY_MAIL, theirs, 2))


async def _far(url: str, dsn: str, port: int, *, connections: int, count: int) -> LoadResult:
    settings = {"EMAIL_SMTP_CONNECTIONS": str(connections)}
    async with emails.service(url, dsn, smtp_port=port, settings=settings) as running:
        await running.send(2 * connections)
        return await running.send(count)


async def _near(url: str, dsn: str, port: int, scale: float, report: Report) -> None:
    """Measure without latency, all in turns."""
    plain: list[LoadResult] = []
    signed: list[LoadResult] = []
    peers: list[LoadResult | Failed] = []
    count = max(1, round(4000 * scale))
    async with emails.service(url, dsn, smtp_port=port) as running:
        await emails.add_domain(dsn)
        for domain in (PLAIN, SIGNED):
            await running.send(max(1, count // 8), domain=domain)
        for number in range(_rounds(scale)):
            report.say(f"mails, round {number + 1} of {_rounds(scale)}")
            plain.append(await running.send(count))
            measuring = _celery_mails(url, threads=8, smtp_port=port, count=max(1, count // 2))
            peers.append(await attempt(measuring, timeout_s=_PEER_S))
            signed.append(await running.send(max(1, count // 2), domain=SIGNED))
    measured = [load for load in peers if isinstance(load, LoadResult)]
    theirs = median(measured) if measured else peers[0]
    ours, name = median(plain), "mails signed twice (RSA-2048, Ed25519)"
    report.add(Measure("mails to smtp-sink, durable outcome", ours, CELERY_MAIL, theirs, 2, 1_800))
    report.add(Measure(name, median(signed), f"{CELERY_MAIL}, unsigned", theirs))
    report.add(Measure(name, median(signed), "the same unsigned", ours))


async def _celery_mails(url: str, *, threads: int, smtp_port: int, count: int) -> LoadResult:
    async with peer_queues.worker("Celery", url, threads=threads) as worker:
        await peer_queues.celery_mails(worker, count=2 * threads, smtp_port=smtp_port)
        return await peer_queues.celery_mails(worker, count=count, smtp_port=smtp_port)


async def measure_urgent_mails(scale: float, report: Report) -> None:
    """Send transactional mails beside a long queue of bulk mail and a domain that never answers."""
    async with (
        urgent_mails.WatchedRelay.running() as relay,
        _stack("gateway", "email", EMAIL_SMTP_PORT=str(relay.port)) as running,
    ):
        report.add(await urgent_mails.compare(running, relay, scale=scale, say=report.say))


async def measure_sockets(scale: float, report: Report) -> None:
    """Publish to many sockets."""
    publications = max(1, round(400 * min(1, scale)))
    found = await asyncio.to_thread(fan_out.compare, publications=publications, rounds=_rounds(scale))
    name, peer = "deliveries to 500 sockets", "websockets.broadcast"
    report.add(Measure(name, found.gateway, peer, found.broadcast, floor=40_000))


async def measure_results(scale: float, report: Report) -> None:
    """Read the results of a large batch."""
    rows = max(5, round(1_000_000 * scale))
    async with _stack("gateway", "batch-processor") as running:
        found = await results.compare(running, rows=rows)
    name = f"results of {rows:,} rows as NDJSON"
    report.add(Measure(name, found.large, f"of {rows // 5:,} rows", found.small, 0.7, 100_000))
    report.add(Measure(name, found.large, "COPY of the same rows", found.copied))


PARTS: dict[str, Callable[[float, Report], Awaitable[None]]] = {
    "quotes": measure_quotes,
    "mail-acceptances": measure_mail_acceptances,
    "tasks": measure_tasks,
    "batches": measure_batches,
    "uploads": measure_uploads,
    "dispatch": measure_dispatch,
    "turns": measure_turns,
    "emails": measure_emails,
    "urgent-mails": measure_urgent_mails,
    "sockets": measure_sockets,
    "results": measure_results,
}
