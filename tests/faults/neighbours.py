"""Guests that send ten times what they may, and how that affects a neighbour of another owner."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from faults import neighbour
from faults import street as streets
from faults.elsewhere import elsewhere
from faults.guests import Guest
from faults.neighbour import PATIENCE_S, Diary
from faults.street import Street, memory_limits
from faults.vitals import Vitals, watching

P99_S = 0.25
ERRAND_S = 10.0
STALL_S = 0.5
CERTAIN_STALL_S = 2.0
ERRANDS = ("mail", "batch", "provider's quote", "stored mail", "webhook")
_BEFORE_S = 1.0
_SETTLE_S = 1.0
_MIB = 1 << 20


@dataclass(frozen=True)
class Complaint:
    """A broken promise; `is_certain` if noise of the machine cannot be its cause."""

    what: str
    text: str
    is_certain: bool = True


@dataclass(frozen=True)
class GuestRow:
    """The result of a guest: what it sent, what the neighbour noticed, and the state of the processes."""

    guest: Guest
    sent: str
    diary: Diary
    vitals: dict[str, Vitals]

    @property
    def complaints(self) -> tuple[Complaint, ...]:
        """Everything that was promised otherwise."""
        idle = self.guest.flood is not None and self.sent.startswith("0 ")
        reported = (Complaint("guest", "the guest has sent nothing", is_certain=False),) if idle else ()
        return (*reported, *_of_neighbour(self.diary), *_of_processes(self.vitals))


async def visit(street: Street, guest: Guest, *, limits: Mapping[str, int] | None = None) -> GuestRow:
    """Run the guest beside the neighbour, and return the result.

    `limits` are the bytes that the processes may have, by default those of their containers.
    """
    streets.calm(street)
    try:
        async with (
            elsewhere(watching(street.stack, limits or memory_limits())) as vitals,
            neighbour.living(street) as diary,
        ):
            await asyncio.sleep(_BEFORE_S)
            await guest.prepare(street)
            sent = await _flood(street, guest)
            await asyncio.sleep(_SETTLE_S)
    finally:
        streets.calm(street)
    return GuestRow(guest, sent, diary.result(), vitals)


async def _flood(street: Street, guest: Guest) -> str:
    if guest.flood is None:
        await asyncio.sleep(guest.seconds)
        return guest.sends
    address = {
        "gateway": street.stack.ports.gateway,
        "mailbox_smtp": street.mailbox.smtp[1],
        "key": street.keys["guest"],
        "seconds": guest.seconds,
    }
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "faults.floods", guest.flood, json.dumps(address)),
        env=streets.environment(),
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        # Longer than a flood goes on that sends all that it has to, however slow the machine is.
        async with asyncio.timeout(5 * guest.seconds + 2 * PATIENCE_S):
            output, _ = await process.communicate()
    finally:
        with suppress(ProcessLookupError):
            process.kill()
    if process.returncode:
        raise AssertionError(f"the guest {guest.name} failed by itself, with {process.returncode}")
    return output.decode().strip()


def _of_neighbour(diary: Diary) -> Iterator[Complaint]:
    if diary.p99_s >= P99_S:
        yield Complaint("p99", f"99 of 100 requests took up to {diary.p99_s:.2f} s", is_certain=False)
    if diary.lost:
        yield Complaint("push", f"{len(diary.lost)} of {len(diary.said)} lines not heard exactly once")
    for errand in ERRANDS:
        if diary.undone[errand] or errand not in diary.errands_s:
            yield Complaint(errand, f"{errand} not done within {PATIENCE_S:.0f} s")
        elif diary.slowest_s(errand) > ERRAND_S:
            yield Complaint(errand, f"{errand} took {diary.slowest_s(errand):.1f} s", is_certain=False)
    if not diary.arrivals_s:
        yield Complaint("arrival", f"no new connection: {dict(diary.refused)}")
    for what, number in diary.refused.items():
        yield Complaint("refused", f"{what}, {number} times")
    for what, number in diary.troubles.items():
        yield Complaint("trouble", f"{what}, {number} times", is_certain=False)


def _of_processes(vitals: dict[str, Vitals]) -> Iterator[Complaint]:
    for name, seen in vitals.items():
        if seen.peak_bytes > seen.limit_bytes:
            limit, peak = seen.limit_bytes // _MIB, seen.peak_bytes // _MIB
            yield Complaint("memory", f"{name} took {peak} MiB; its container has {limit}")
        if seen.unready:
            yield Complaint("unready", f"{name} was not ready {len(seen.unready)} times: {seen.unready[0]}")
        if seen.stall_s >= STALL_S:
            text = f"the loop of {name} stood still for {seen.stall_s:.1f} s"
            yield Complaint("stall", text, is_certain=seen.stall_s >= CERTAIN_STALL_S)


def report(row: GuestRow) -> str:
    """Return the result of a guest in a few lines."""
    diary = row.diary
    errands = ", ".join(f"{errand} {diary.slowest_s(errand):.1f} s" for errand in ERRANDS)
    processes = ", ".join(
        f"{name} {seen.peak_bytes // _MIB} MiB {seen.stall_s:.2f} s" for name, seen in row.vitals.items()
    )
    slowest = ", ".join(f"{number} {asked}" for asked, number in diary.waited_for.most_common())
    lines = [
        f"{'BROKEN' if row.complaints else 'kept'}: {row.sent}",
        f"{len(diary.latencies_s)} requests and {len(diary.arrivals_s)} new connections, p99 "
        f"{diary.p99_s * 1000:.0f} ms; {len(diary.said)} lines, {len(diary.lost)} lost; {errands}",
        f"the slowest of 100 requests: {slowest}",
        processes,
        *(f"! {'' if one.is_certain else '(maybe noise) '}{one.text}" for one in row.complaints[:10]),
    ]
    return "\n".join(f"    {line}" for line in lines)


async def run_all(folder: Path, guests: Sequence[Guest]) -> list[GuestRow]:
    """Run the guests one after the other on one street, and print the result of each."""
    rows = []
    async with streets.running(folder) as street:
        for number, guest in enumerate(guests, start=1):
            print(f"[{number}/{len(guests)}] {guest.kind}: {guest.sends}", flush=True)
            rows.append(await visit(street, guest))
            print(report(rows[-1]), flush=True)
            await street.rig.recovered()
            await street.rig.forget_parked()
    return rows
