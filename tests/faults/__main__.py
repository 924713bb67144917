"""`python -m faults`: break the product in every way, and print the results."""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import sys
import tempfile
import time
from collections.abc import Callable, Coroutine, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from faults import guests, neighbours, table
from faults import rig as rigs
from faults import scenario as running
from faults.rig import Rig
from faults.scenario import Row, Scenario
from faults.scenarios import BY_NAME, SCENARIOS

T = TypeVar("T")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the chosen scenarios; 1 when a promise was broken."""
    options = _parser().parse_args(arguments)
    unknown = [name for name in options.only if name not in BY_NAME and name not in guests.BY_NAME]
    if unknown:
        sys.stderr.write(f"no such scenario or guest: {', '.join(unknown)}; see --list\n")
        return 2
    if options.list:
        print("\n".join(f"{one.name:22} {one.title}" for one in SCENARIOS))
        print("\n".join(f"{one.name:22} {one.kind}: {one.sends}" for one in guests.GUESTS))
        return 0
    return 0 if _run_scenarios(options) and _run_guests(options) else 1


def _run_scenarios(options: argparse.Namespace) -> bool:
    """Run the chosen scenarios; return whether every promise was kept."""
    chosen = _choose(options)
    if not chosen:
        return True
    rows = asyncio.run(_in_a_folder(options, partial(_run_all, options, chosen)))
    print("\n" + table.render(rows))
    if options.write and len(rows) == len(SCENARIOS):
        table.write(rows, heading=_heading(options.seed))
    return len(rows) == len(chosen) * options.times and all(row.passed for row in rows)


def _run_guests(options: argparse.Namespace) -> bool:
    """Run the chosen guests; return whether no neighbour noticed any of them."""
    names = options.only or guests.BY_NAME
    chosen = [one for one in guests.GUESTS if one.name in names and (one.is_quick or not options.quick)]
    if not chosen:
        return True
    others = os.getloadavg()[0]
    rows = asyncio.run(_in_a_folder(options, lambda folder: neighbours.run_all(folder, chosen)))
    print("\n" + table.render_guests(rows))
    if options.write and len(rows) == len(guests.GUESTS):
        heading = f"On {os.cpu_count()} processors, with a load of {others:.1f} by others before the run."
        table.write_guests(rows, heading=heading)
    return not any(row.complaints for row in rows)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m faults", description=__doc__)
    parser.add_argument(
        "--only", nargs="+", default=[], metavar="NAME", help="these scenarios and guests only"
    )
    parser.add_argument("--guests", action="store_true", help="no scenarios, only the guests")
    parser.add_argument("--quick", action="store_true", help="the short selection that runs with the tests")
    parser.add_argument("--seed", type=int, default=random.randrange(10_000), help="repeat a run")
    parser.add_argument(
        "--times", type=int, default=1, help="run each scenario so often, each with a new seed"
    )
    parser.add_argument("--long", action="store_true", help="five times the load")
    parser.add_argument(
        "--write", action="store_true", help="put the table of all scenarios into docs/reliability.md"
    )
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="keep the logs of the run in this folder")
    parser.add_argument("--list", action="store_true", help="list the scenarios")
    return parser


def _choose(options: argparse.Namespace) -> list[Scenario]:
    names = guests.BY_NAME if options.guests else options.only or BY_NAME
    chosen = [one for one in SCENARIOS if one.name in names]
    if options.quick:
        chosen = [one for one in chosen if one.is_quick]
    return [one.enlarged(5) for one in chosen] if options.long else chosen


async def _in_a_folder(options: argparse.Namespace, run: Callable[[Path], Coroutine[Any, Any, T]]) -> T:
    if options.keep is not None:
        return await run(options.keep)
    with tempfile.TemporaryDirectory(prefix="faults-") as folder:
        return await run(Path(folder))


async def _run_all(options: argparse.Namespace, scenarios: Sequence[Scenario], folder: Path) -> list[Row]:
    rows: list[Row] = []
    seed, times = options.seed, options.times
    print(f"seed {seed}; starting the whole product on private ports …", flush=True)
    async with rigs.running(folder) as rig:
        await rig.recovered()
        for number, one in enumerate([one for one in scenarios for _ in range(times)]):
            print(f"[{number + 1}/{len(scenarios) * times}] {one.title}", flush=True)
            row = await _attempt(rig, one, seed + number % times)
            rows += [row] if row else []
    return rows


async def _attempt(rig: Rig, scenario: Scenario, seed: int) -> Row | None:
    started = time.monotonic()
    try:
        row = await running.run(rig, scenario, seed=seed)
    except Exception as error:
        # Whatever it was, the other scenarios tell something too.
        print(f"    BROKEN: {error!r}; unready: {await rig.unready()}", flush=True)
        return None
    finally:
        await rig.forget_parked()
    _report(row, time.monotonic() - started)
    return row


def _report(row: Row, seconds: float) -> None:
    balance, answers = row.balance, row.answers
    verdict = "kept" if row.passed else "BROKEN"
    lines = [
        f"{verdict}: accepted {balance.accepted} of {balance.planned}, lost {balance.lost}, "
        f"duplicates {balance.duplicates} ({balance.explained} explained)",
        f"recovered in {row.recovery_s:.1f} s, settled {row.settled_s:.1f} s later, {seconds:.0f} s in all",
        f"{answers.summary()}; slowest {answers.slowest_s:.2f} s ({answers.slowest})",
        *(f"! {complaint}" for complaint in row.complaints[:10]),
    ]
    print("\n".join(f"    {line}" for line in lines), flush=True)


def _heading(seed: int) -> str:
    return f"Seed {seed}."


if __name__ == "__main__":
    raise SystemExit(main())
