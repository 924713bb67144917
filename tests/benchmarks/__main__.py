"""`make bench`: all measures in one run on this machine, each as a ratio against its peer."""

from __future__ import annotations

import argparse
import asyncio
import os
import platform
import subprocess
import tempfile
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks import acceptances, batches, emails, fan_out, quotes, results
from benchmarks.load import Load
from native import stack
from native.ports import HOST, free_port

PAGE = Path(__file__).resolve().parents[2] / "docs" / "performance.md"
PREFACE = """# Performance

Written by `make bench ARGS="--write --scale {scale:g}"` on {day}: {cores} cores, Python {python},
a load average of {load:.1f} at the end.

Every figure stands beside a peer that was measured in the same run, in turns, so that the noise of the
machine falls on both: look at the ratios. Load comes from `wrk` with 32 connections on the same machine; CPU
is the time of the server's own process for each answer. Mails and tasks are accepted while the services
behind work them off on the same cores.

"""


@dataclass(frozen=True)
class Measure:
    """One line of the table: what was measured, its rate a second, its peer, and what is expected.

    `at_least` is a multiple of the peer's rate; `floor` a rate that is asked of a quiet machine.
    """

    name: str
    rate: float
    peer: str
    peer_rate: float
    at_least: float | None
    floor: float | None = None
    cpu_us: float | None = None
    peer_cpu_us: float | None = None

    @property
    def ratio(self) -> float:
        """Our rate as a multiple of the peer's."""
        return self.rate / self.peer_rate

    @property
    def verdicts(self) -> str:
        """Each expectation, and whether this run has met it."""
        asked = [
            (f"≥ {self.at_least or 0:g} x", self.ratio, self.at_least),
            (f"≥ {self.floor or 0:,.0f}/s", self.rate, self.floor),
        ]
        told = [
            f"{words} {'met' if found >= least else 'MISSED'}"
            for words, found, least in asked
            if least is not None
        ]
        return ", ".join(told) or "none"


def _against(
    name: str, ours: Load, peer: str, theirs: Load, at_least: float | None, *, floor: float | None = None
) -> Measure:
    return Measure(
        name,
        ours.per_second,
        peer,
        theirs.per_second,
        at_least,
        floor,
        cpu_us=ours.cpu_us,
        peer_cpu_us=theirs.cpu_us,
    )


async def measure_quotes(scale: float) -> list[Measure]:
    with tempfile.TemporaryDirectory(prefix="tickwire-bench-") as folder:
        async with stack.start(
            Path(folder), services=("gateway", "stock-data"), without=("mailbox", "prometheus")
        ) as running:
            rates = await quotes.compare(running, rounds=max(1, round(3 * scale)))
    return [
        _against("quotes, authenticated and metered", rates.gateway, "bare Quart route", rates.bare, 1),
        _against(
            "quotes, authenticated and metered", rates.gateway, "Quart + aio_pika RPC", rates.pattern, 5
        ),
    ]


async def measure_acceptances(scale: float) -> list[Measure]:
    with tempfile.TemporaryDirectory(prefix="tickwire-bench-") as folder, sink() as port:
        async with stack.start(
            Path(folder),
            services=("gateway", "email", "batch-processor"),
            without=("mailbox", "prometheus"),
            variables={"EMAIL_SMTP_PORT": str(port)},
        ) as running:
            found = await acceptances.compare(running, rounds=max(1, round(3 * scale)))
    return [
        _against(
            f"POST {path}, accepted and worked off",
            rates.shared,
            "a commit each",
            rates.single,
            1.6,
            floor=1_200,
        )
        for path, rates in found.items()
    ]


@contextmanager
def sink() -> Iterator[int]:
    """Run a relay that takes every mail; yield its port."""
    port = free_port()
    process = subprocess.Popen(["smtp-sink", "-c", f"{HOST}:{port}", "1000"], stdout=subprocess.DEVNULL)
    try:
        yield port
    finally:
        process.terminate()
        process.wait()


async def measure_batches(scale: float) -> list[Measure]:
    ours = await batches.echo_items_per_second(count=round(200_000 * scale))
    theirs = await batches.dramatiq_items_per_second(count=round(20_000 * scale))
    return [Measure("batch items with durable results", ours.per_second, "Dramatiq, no result", theirs, 10)]


async def measure_emails(scale: float) -> list[Measure]:
    result = await emails.mails_per_second(count=round(10_000 * scale))
    return [Measure("mails to smtp-sink, durable outcome", result.per_second, "500 mails/s", 500, 1)]


async def measure_sockets(scale: float) -> list[Measure]:
    rounds = max(1, round(3 * scale))
    found = await asyncio.to_thread(fan_out.compare, publications=round(400 * min(1, scale)), rounds=rounds)
    name, peer = "deliveries to 500 sockets", "websockets.broadcast"
    return [_against(name, found.gateway, peer, found.broadcast, None, floor=40_000)]


async def measure_results(scale: float) -> list[Measure]:
    rows = round(1_000_000 * scale)
    with tempfile.TemporaryDirectory(prefix="tickwire-bench-") as folder:
        async with stack.start(
            Path(folder), services=("gateway", "batch-processor"), without=("mailbox", "prometheus")
        ) as running:
            found = await results.compare(running, rows=rows)
    name = f"results of {rows:,} rows as NDJSON"
    return [
        Measure(name, found.large, f"of {rows // 5:,} rows", found.small, 0.7, 100_000),
        Measure(name, found.large, "COPY of the same rows", found.copied, None),
    ]


PARTS: dict[str, Callable[[float], Awaitable[list[Measure]]]] = {
    "quotes": measure_quotes,
    "acceptances": measure_acceptances,
    "batches": measure_batches,
    "emails": measure_emails,
    "sockets": measure_sockets,
    "results": measure_results,
}


async def run(parts: list[str], scale: float) -> list[Measure]:
    console = Console(stderr=True)
    found = []
    for part in parts:
        with console.status(f"measuring {part}"):
            found += await PARTS[part](scale)
    return found


HEADINGS = ("what", "per second", "CPU µs", "against", "its rate", "its CPU µs", "ratio", "expected")


def rows(measures: list[Measure]) -> list[tuple[str, ...]]:
    """Return the measures as cells of `HEADINGS`."""
    return [
        (
            m.name,
            f"{m.rate:,.0f}",
            "" if m.cpu_us is None else f"{m.cpu_us:,.0f}",
            m.peer,
            f"{m.peer_rate:,.0f}",
            "" if m.peer_cpu_us is None else f"{m.peer_cpu_us:,.0f}",
            f"{m.ratio:.2f}",
            m.verdicts,
        )
        for m in measures
    ]


def show(measures: list[Measure]) -> None:
    table = Table(title="Measured in one run on this machine")
    for column in HEADINGS:
        table.add_column(column, justify="left" if column in ("what", "against") else "right")
    for row in rows(measures):
        table.add_row(*row)
    Console().print(table)


def write(measures: list[Measure], scale: float) -> None:
    """Write what was found to `docs/performance.md`, with how it was measured."""
    lines = ["| " + " | ".join(row) + " |" for row in (HEADINGS, ("---",) * len(HEADINGS), *rows(measures))]
    load = os.getloadavg()[0]
    # What is not measured here stays.
    _, heading, rest = PAGE.read_text(encoding="utf-8").partition("\n## ")
    PAGE.write_text(
        PREFACE.format(
            day=datetime.now(UTC).date(),
            cores=os.cpu_count(),
            python=platform.python_version(),
            load=load,
            scale=scale,
        )
        + "\n".join(lines)
        + "\n"
        + heading
        + rest,
        encoding="utf-8",
    )


def main() -> None:
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument("parts", nargs="*", choices=[*PARTS, []], help="which to measure (all)")
    parser.add_argument("--scale", type=float, default=1.0, help="how long to measure, 1 is the full length")
    parser.add_argument("--write", action="store_true", help="write the table to docs/performance.md")
    arguments = parser.parse_args()
    found = asyncio.run(run(arguments.parts or list(PARTS), arguments.scale))
    show(found)
    if arguments.write:
        write(found, arguments.scale)


if __name__ == "__main__":
    main()
