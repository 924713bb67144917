"""The resources of the running stack: each program's memory (PSS: shared pages are divided) and CPU time."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

import psutil

from native import leftovers

_MIB = 1 << 20


@dataclass(frozen=True)
class Cost:
    """One program with its children: memory in MiB, and percent of one core."""

    name: str
    memory_mib: float
    cpu_percent: float


def measure(root: Path, runner: int, *, seconds: float) -> list[Cost]:
    """Return the cost of each program of the stack, the largest in memory first; takes `seconds`."""
    tops = {process.pid: process for process in leftovers.find(root)} | {runner: psutil.Process(runner)}
    before = {pid: _spent(process) for pid, process in _all(tops).items()}
    time.sleep(seconds)
    costs: dict[str, list[float]] = {}
    for pid, process in _all(tops).items():
        try:
            name, memory = _name(process, runner), process.memory_full_info().pss / _MIB
        except psutil.Error:
            continue
        cost = costs.setdefault(name, [0.0, 0.0])
        cost[0] += memory
        cost[1] += 100 * max(0.0, _spent(process) - before.get(pid, 0.0)) / seconds
    return sorted(
        (Cost(name, memory, cpu) for name, (memory, cpu) in costs.items()), key=lambda cost: -cost.memory_mib
    )


def table(costs: list[Cost]) -> str:
    """Return the costs as lines, with the total last."""
    whole = Cost("all", sum(c.memory_mib for c in costs), sum(c.cpu_percent for c in costs))
    return "\n".join(
        f"  {cost.name:<28} {cost.memory_mib:7.1f} MiB {cost.cpu_percent:6.2f} % of a core"
        for cost in (*costs, whole)
    )


def _all(tops: dict[int, psutil.Process]) -> dict[int, psutil.Process]:
    """Return the processes and all their descendants: PostgreSQL overwrites the marker in its children."""
    found = dict(tops)
    for process in tops.values():
        try:
            found |= {child.pid: child for child in process.children(recursive=True)}
        except psutil.Error:
            continue
    return found


def _name(process: psutil.Process, runner: int) -> str:
    if process.pid == runner:
        return "runner"
    words = process.cmdline()
    if "-m" in words[:-1]:
        return words[words.index("-m") + 1]
    return process.name()


def _spent(process: psutil.Process) -> float:
    try:
        times = process.cpu_times()
    except psutil.Error:
        return 0.0
    return float(times.user + times.system)
