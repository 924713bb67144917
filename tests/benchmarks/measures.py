"""The result of a measurement: a rate, or the reason why there is none, beside that of a named peer.

Where time matters in place of a rate, it is a wait.
"""

from __future__ import annotations

import asyncio
import math
import statistics
import traceback
from collections.abc import Awaitable, Iterable, Sequence
from dataclasses import dataclass

from benchmarks.load import LoadResult

HEADINGS = ("what", "per second", "CPU µs", "against", "its rate", "its CPU µs", "ratio", "expected")
_TIMES = ("median ms", "99 % ms", "longest ms")
WAIT_HEADINGS = ("what", *_TIMES, *(f"alone, {each}" for each in _TIMES), "expected")
_LONGEST_REASON = 80


@dataclass(frozen=True)
class Failed:
    """A measurement that came to no end, and why."""

    reason: str


async def attempt(measuring: Awaitable[LoadResult], *, timeout_s: float) -> LoadResult | Failed:
    """Return the result of `measuring`, or the reason why there is none within `timeout_s` seconds."""
    try:
        async with asyncio.timeout(timeout_s):
            return await measuring
    except Exception as error:
        traceback.print_exception(error)
        return failed(error)


def failed(error: BaseException) -> Failed:
    """Return `error` in few words, without paths of this machine."""
    text = " ".join(str(error).replace("|", " ").split())
    if not text or "/" in text or len(text) > _LONGEST_REASON:
        return Failed(type(error).__name__)
    return Failed(f"{type(error).__name__}: {text}")


@dataclass(frozen=True)
class Measure:
    """One line of the table: what was measured, what it is measured against, and what is expected.

    `at_least` is a multiple of the peer's rate; `floor` a rate that is asked of the machine on which it was
    set. `pace` is how fast this machine was beside that one while it was measured. `most_mib` is the memory
    that no process may exceed, and `mib` what the largest one had.
    """

    name: str
    ours: LoadResult | Failed
    peer: str
    theirs: LoadResult | Failed
    at_least: float | None = None
    floor: float | None = None
    pace: float | None = None
    mib: int | None = None
    most_mib: int | None = None

    @property
    def ratio(self) -> float | None:
        """Our rate as a multiple of the peer's, if both were measured."""
        if isinstance(self.ours, Failed) or isinstance(self.theirs, Failed):
            return None
        return self.ours.per_second / self.theirs.per_second

    @property
    def verdicts(self) -> str:
        """Each expectation, and whether this run has met it; why something was not measured."""
        rate = None if isinstance(self.ours, Failed) else self.ours.per_second
        here = None if self.floor is None or self.pace is None else self.floor * self.pace
        asked = [
            (f"≥ {self.at_least or 0:g} x", self.ratio, self.at_least),
            (f"≥ {self.floor or 0:,.0f}/s", rate, self.floor),
            (f"at a pace of {self.pace or 0:.2f} ≥ {here or 0:,.0f}/s", rate, here),
        ]
        reported = []
        for words, found, least in asked:
            if least is not None:
                verdict = "NOT MEASURED" if found is None else "met" if found >= least else "MISSED"
                reported.append(f"{words} {verdict}")
        if self.most_mib is not None:
            is_met = self.mib is not None and self.mib < self.most_mib
            reported.append(f"< {self.most_mib} MiB {'met' if is_met else 'MISSED'}")
        reasons = {side.reason for side in (self.ours, self.theirs) if isinstance(side, Failed)}
        return ", ".join([*reported, *sorted(reasons)]) or "none"

    @property
    def cells(self) -> tuple[str, ...]:
        """The line as cells of `HEADINGS`."""
        ratio = "" if self.ratio is None else f"{self.ratio:.2f}"
        return (self.name, *_cells(self.ours), self.peer, *_cells(self.theirs), ratio, self.verdicts)


@dataclass(frozen=True)
class Wait:
    """A line of the second table: what something took, each time, beside what it takes alone, in seconds.

    `share` of the times, all by default, may take `most_s`.
    """

    name: str
    times: Sequence[float]
    alone: Sequence[float]
    most_s: float
    share: float = 1.0

    @property
    def cells(self) -> tuple[str, ...]:
        """The line as cells of `WAIT_HEADINGS`."""
        shown = (
            _milliseconds(each)
            for found in (self.times, self.alone)
            for each in (statistics.median(found), within_s(found, 0.99), max(found))
        )
        whose = "" if self.share == 1 else f"{100 * self.share:g} % "
        verdict = "met" if within_s(self.times, self.share) < self.most_s else "MISSED"
        most = f"{self.most_s:g} s" if self.most_s >= 1 else f"{1000 * self.most_s:g} ms"
        return (self.name, *shown, f"{whose}< {most} {verdict}")


def within_s(times: Sequence[float], share: float) -> float:
    """Return the time within which that share of `times` lies; it is one of them."""
    return sorted(times)[math.ceil(share * len(times)) - 1]


def table(headings: Sequence[str], lines: Iterable[Measure | Wait]) -> str:
    """Return the lines as a table of Markdown."""
    rows = [headings, ("---",) * len(headings), *(line.cells for line in lines)]
    return "".join("| " + " | ".join(row) + " |\n" for row in rows)


def has_failed(measures: Iterable[Measure]) -> bool:
    """Return whether something was not measured."""
    return any(isinstance(side, Failed) for one in measures for side in (one.ours, one.theirs))


def _milliseconds(seconds: float) -> str:
    return f"{1000 * seconds:,.{1 if seconds < 0.01 else 0}f}"


def _cells(side: LoadResult | Failed) -> tuple[str, str]:
    if isinstance(side, Failed):
        return "failed", ""
    return f"{side.per_second:,.0f}", "" if side.cpu_us is None else f"{side.cpu_us:,.0f}"
