"""The page `docs/performance.md`: the results, and how they were measured."""

from __future__ import annotations

import os
import platform
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from benchmarks import pace
from benchmarks.measures import HEADINGS, WAIT_HEADINGS, Measure, Wait, table

PAGE = Path(__file__).resolve().parents[2] / "docs" / "performance.md"
_PREFACE = """# Performance

Written by `make bench ARGS="--write --scale {scale:g}"` on {day}: {cores} cores, Python {python},
a load average of {before:.1f} before and {after:.1f} at the end.

Every figure stands beside a peer that was measured in the same run, so that the noise of the machine falls on
both: compare the ratios, which are the first rate divided by that of the peer. What was measured in turns is
their median. CPU is processor time for each request, mail, task, item or row, in microseconds; "How it is
measured" says of which processes. What could not be measured says why.

What is expected is a ratio (≥ 1 x), or a rate (≥ 1,200/s). The rates were set on another machine, on which a
bare Quart route answers {there:,.0f} requests a second. Here the same route is measured before and after each
part: its rate divided by the one there is the pace of this machine in these minutes, and what was measured is
also compared with the expected rate times that pace
([why](decisions/0036-rates-at-the-pace-of-the-machine.md)).

"""
_WAITS = """
Of waits, in place of rates, the longest is compared with what is expected, or the one that a named share does
not exceed:

"""
_BY_ITSELF = """### Measured by itself: {parts}
By `make bench ARGS="{options} --write --scale {scale:g}"` on {day}, after the tables above, with
a load average of {before:.1f} before and {after:.1f} at the end:

"""


def write(
    measures: Sequence[Measure], waits: Sequence[Wait], *, scale: float, load_before: float, page: Path = PAGE
) -> None:
    """Write the results of all parts to the page; its other chapters stay unchanged."""
    _, heading, rest = page.read_text(encoding="utf-8").partition("\n## ")
    preface = _PREFACE.format(
        scale=scale,
        day=datetime.now(UTC).date(),
        cores=os.cpu_count(),
        python=platform.python_version(),
        before=load_before,
        after=os.getloadavg()[0],
        there=pace.THERE,
    )
    page.write_text(preface + _tables(measures, waits) + heading + rest, encoding="utf-8")


def write_parts(
    parts: Sequence[str],
    measures: Sequence[Measure],
    waits: Sequence[Wait],
    *,
    scale: float,
    load_before: float,
    page: Path = PAGE,
) -> None:
    """Write the results of a run of these parts below those of all, in place of their results there."""
    before, heading, rest = page.read_text(encoding="utf-8").partition("\n## ")
    named = ", ".join(parts)
    kept = [each for each in before.split("\n### ") if each.partition("\n")[0] != _title(named)]
    found = _BY_ITSELF.format(
        parts=named,
        options=" ".join(f"--only {part}" for part in parts),
        scale=scale,
        day=datetime.now(UTC).date(),
        before=load_before,
        after=os.getloadavg()[0],
    )
    before = "\n### ".join(kept) + "\n" + found + _tables(measures, waits)
    page.write_text(before + heading + rest, encoding="utf-8")


def _title(parts: str) -> str:
    return _BY_ITSELF.partition("\n")[0].removeprefix("### ").format(parts=parts)


def _tables(measures: Sequence[Measure], waits: Sequence[Wait]) -> str:
    rates = table(HEADINGS, measures) if measures else ""
    times = table(WAIT_HEADINGS, waits) if waits else ""
    return rates + (_WAITS if rates and times else "") + times
