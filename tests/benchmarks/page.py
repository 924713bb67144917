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
both: look at the ratios. Where there are turns it is the median of them. What could not be measured says why.
A rate that is asked for as such was set on a machine on which a bare Quart route gives {there:,.0f}/s. That
route is measured before and after each part; its rate beside the one there is the pace, and the wanted rate
is named at that pace, too (docs/decisions/0036-rates-at-the-pace-of-the-machine.md).

"""


_WAITS = """
Where time matters, in place of a rate, the longest of {rounds} turns is what is asked for:

"""


def write(
    measures: Sequence[Measure], waits: Sequence[Wait], *, scale: float, load_before: float, page: Path = PAGE
) -> None:
    """Write the results to the page; its other chapters stay unchanged."""
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
    rates = table(HEADINGS, measures)
    if waits:
        rates += _WAITS.format(rounds=len(waits[0].times)) + table(WAIT_HEADINGS, waits)
    page.write_text(preface + rates + heading + rest, encoding="utf-8")
