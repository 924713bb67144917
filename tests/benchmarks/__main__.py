"""`make bench`: all measures in one run on this machine, each as a ratio against its peer."""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import signal
import sys
import time
import traceback
from collections.abc import Iterable, Sequence
from dataclasses import replace

import psutil
import structlog
from rich.console import Console
from rich.table import Table

from benchmarks import pace, page
from benchmarks.measures import HEADINGS, WAIT_HEADINGS, Measure, Wait, failed, has_failed
from benchmarks.parts import PARTS, Report
from chassis import queries
from native.process import kill

# So long a part may take: what it measures at scale 1, and the start of its servers.
_PART_S = 300
_START_S = 240


class ProgressLine:
    """Shows on standard error what is being measured: a line that changes, or one for each step."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._began = time.monotonic()
        self._status = console.status("")

    def __enter__(self) -> ProgressLine:
        if self._console.is_terminal:
            self._status.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._status.stop()

    def show(self, text: str) -> None:
        """Show what begins now."""
        line = f"{time.monotonic() - self._began:4.0f} s  {text}"
        if self._console.is_terminal:
            self._status.update(line)
        else:
            self._console.print(line, markup=False, highlight=False)


async def run(parts: Sequence[str], scale: float) -> list[Measure | Wait]:
    """Measure `parts` one after the other; one that fails has a line that says so, after what it found."""
    found: list[Measure | Wait] = []

    async def measure(part: str, where: str, progress: ProgressLine) -> None:
        progress.show(where)
        lines: list[Measure | Wait] = []
        report = Report(lines.append, lambda text: progress.show(f"{where}: {text}"))
        before = await pace.measure()
        try:
            async with asyncio.timeout(_START_S + _PART_S * scale):
                await PARTS[part](scale, report)
        except Exception as error:
            traceback.print_exception(error)
            lines.append(Measure(part, failed(error), "", failed(error)))
        meanwhile = (before + await pace.measure()) / 2
        found.extend(replace(line, pace=meanwhile) if isinstance(line, Measure) else line for line in lines)

    with ProgressLine(Console(stderr=True)) as progress:
        for number, part in enumerate(parts, start=1):
            await measure(part, f"{number}/{len(parts)} {part}", progress)
    return found


async def run_until_stopped(parts: Sequence[str], scale: float) -> list[Measure | Wait]:
    """Measure, and end in good order when this process is asked to stop; nothing that was started stays."""
    task = asyncio.current_task()
    assert task is not None
    for number in (signal.SIGTERM, signal.SIGHUP):
        asyncio.get_running_loop().add_signal_handler(number, task.cancel)
    try:
        return await run(parts, scale)
    finally:
        await kill(psutil.Process().children(recursive=True))


def show(title: str, headings: Iterable[str], lines: Sequence[Measure | Wait]) -> None:
    """Print a table of the lines, if there are any."""
    if not lines:
        return
    table = Table(title=title)
    for column in headings:
        table.add_column(column, justify="left" if column in ("what", "against") else "right")
    for one in lines:
        table.add_row(*one.cells)
    # A file takes lines of any length.
    Console(width=None if sys.stdout.isatty() else 180).print(table)


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Return the options; `parts` are those to measure, in their order."""
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument(
        "--only",
        action="append",
        choices=[*PARTS],
        metavar="PART",
        help=f"measure this one: {', '.join(PARTS)}",
    )
    parser.add_argument("--scale", type=float, default=1.0, help="how long to measure, 1 is the full length")
    parser.add_argument("--write", action="store_true", help="write the table to docs/performance.md")
    options = parser.parse_args(arguments)
    options.parts = [part for part in PARTS if part in (options.only or PARTS)]
    return options


def main() -> int:
    """Measure, print, and write the page if asked; return 1 when something could not be measured."""
    options = parse()
    # A part of the mail service makes its signing keys in this process.
    queries.load("chassis", "emailer")
    # What our own parts log in this process would tear the progress line.
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    load_before = os.getloadavg()[0]
    try:
        found = asyncio.run(run_until_stopped(options.parts, options.scale))
    except (KeyboardInterrupt, asyncio.CancelledError):
        sys.stderr.write("Stopped; nothing is written and nothing runs any more.\n")
        return 130
    measures = [line for line in found if isinstance(line, Measure)]
    waits = [line for line in found if isinstance(line, Wait)]
    show("Measured in one run on this machine", HEADINGS, measures)
    show("How long it took", WAIT_HEADINGS, waits)
    if options.write and options.only:
        page.write_parts(options.parts, measures, waits, scale=options.scale, load_before=load_before)
    elif options.write:
        page.write(measures, waits, scale=options.scale, load_before=load_before)
    return int(has_failed(measures))


if __name__ == "__main__":
    sys.exit(main())
