"""`make bench`: all measures in one run on this machine, each as a ratio against its peer."""

from __future__ import annotations

import argparse
import asyncio
import subprocess
import tempfile
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks import acceptances, batches, emails, quotes
from native import stack
from native.ports import HOST, free_port


@dataclass(frozen=True)
class Measure:
    """One line of the table: what was measured, its rate a second, its peer, and what is expected."""

    name: str
    rate: float
    peer: str
    peer_rate: float
    at_least: float

    @property
    def ratio(self) -> float:
        """Our rate as a multiple of the peer's."""
        return self.rate / self.peer_rate

    @property
    def holds(self) -> bool:
        """Whether the expectation is met in this run."""
        return self.ratio >= self.at_least


async def measure_quotes(scale: float) -> list[Measure]:
    with tempfile.TemporaryDirectory(prefix="tickwire-bench-") as folder:
        async with stack.start(
            Path(folder), services=("gateway", "stock-data"), without=("mailbox", "prometheus")
        ) as running:
            rates = await quotes.measure(running, rounds=max(1, round(3 * scale)))
    return [
        Measure("quotes, authenticated and metered", rates.gateway, "bare Quart route", rates.bare, 1),
        Measure("quotes, authenticated and metered", rates.gateway, "Quart + aio_pika RPC", rates.pattern, 3),
    ]


async def measure_acceptances(scale: float) -> list[Measure]:
    with tempfile.TemporaryDirectory(prefix="tickwire-bench-") as folder, sink() as port:
        async with stack.start(
            Path(folder),
            services=("gateway", "email", "batch-processor"),
            without=("mailbox", "prometheus"),
            variables={"EMAIL_SMTP_PORT": str(port)},
        ) as running:
            found = await acceptances.measure(running, rounds=max(1, round(3 * scale)))
    return [
        Measure(f"POST {path}, accepted and worked off", rates.shared, "a commit each", rates.single, 1.6)
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
    return [Measure("batch items with durable results", ours.per_second, "Dramatiq, no result", theirs, 2)]


async def measure_emails(scale: float) -> list[Measure]:
    result = await emails.mails_per_second(count=round(10_000 * scale))
    return [Measure("mails to smtp-sink, durable outcome", result.per_second, "500 mails/s", 500, 1)]


PARTS: dict[str, Callable[[float], Awaitable[list[Measure]]]] = {
    "quotes": measure_quotes,
    "acceptances": measure_acceptances,
    "batches": measure_batches,
    "emails": measure_emails,
}


async def run(parts: list[str], scale: float) -> list[Measure]:
    console = Console(stderr=True)
    found = []
    for part in parts:
        with console.status(f"measuring {part}"):
            found += await PARTS[part](scale)
    return found


def show(measures: list[Measure]) -> None:
    table = Table(title="Measured in one run on this machine")
    for column in ("what", "per second", "against", "its rate", "ratio", "expected"):
        table.add_column(column, justify="left" if column in ("what", "against") else "right")
    for m in measures:
        verdict = "met" if m.holds else "MISSED"
        table.add_row(
            m.name,
            f"{m.rate:,.0f}",
            m.peer,
            f"{m.peer_rate:,.0f}",
            f"{m.ratio:.2f}",
            f"≥ {m.at_least:g} {verdict}",
        )
    Console().print(table)


def main() -> None:
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument("parts", nargs="*", choices=[*PARTS, []], help="which to measure (all)")
    parser.add_argument("--scale", type=float, default=1.0, help="how long to measure, 1 is the full length")
    arguments = parser.parse_args()
    show(asyncio.run(run(arguments.parts or list(PARTS), arguments.scale)))


if __name__ == "__main__":
    main()
