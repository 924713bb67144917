"""The answers of the gateway while a dependency is away, slow, silent, or comes and goes."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from typing import Any, Literal

import httpx

from faults import harm
from faults.load import describe
from faults.rig import PROVIDER, Rig

Fault = Literal["down", "slow", "black hole", "flapping"]
FAULTS: tuple[Fault, ...] = ("down", "slow", "black hole", "flapping")

# The default deadline of a request is 5 s; the margin is for a machine that is busy.
CAP_S = 8.0

_BODIES: dict[str, tuple[str, str, Any]] = {
    "accept a mail": ("POST", "/v1/emails", {"to": ["matrix@example.com"], "subject": "m", "text": "m"}),
    "accept a task": ("POST", "/v1/tasks", {"operation": "echo", "payload": 1}),
    "quote": ("GET", "/v1/stocks/AAPL", None),
    "bars": ("GET", "/v1/stocks/AAPL/bars?start=2013-01-01&limit=10", None),
    "state of a mail": ("GET", "/v1/emails/{mail}", None),
    "list of batches": ("GET", "/v1/batches", None),
    "user": ("GET", "/v1/users/{user}", None),
}
PROBES = tuple(_BODIES)
# Retry-After is promised with each of these.
_WITH_RETRY_AFTER = "503 "

_DATABASE = "503 database-unavailable"
_BROKER = "503 broker-unavailable"
_SERVICE = "503 service-unavailable"
_LATE = "504 deadline-exceeded"
# The history that is shipped lies in stock-data's own database.
_PROVIDER = "503 provider-down"


@dataclass(frozen=True)
class Cell:
    """One dependency under one fault: what each probe may be answered, and the gateway's reasons.

    Probes that are not named are answered as if nothing were the matter. `reason` is the check of
    `/readyz` that must say why; without one the gateway stays ready, unless readiness `flaps`.
    """

    dependency: str
    fault: Fault
    answers: Mapping[str, tuple[str, ...]]
    reason: str | None = None
    flaps: bool = False

    @property
    def readiness(self) -> str:
        """Return the readiness of the gateway meanwhile, in the words of the table."""
        return "comes and goes" if self.flaps else self.reason or "stays ready"

    def allowed(self, probe: str) -> tuple[str, ...]:
        """Return the answers that `probe` may get."""
        return self.answers.get(probe, ("202" if probe.startswith("accept") else "200",))


@dataclass(frozen=True)
class ProbeResult:
    """The answer to a probe, and after how many seconds it came."""

    probe: str
    answer: str
    elapsed_s: float
    retry_after: str | None


def _down_or_up(*away: str) -> tuple[str, ...]:
    return ("200", *away)


_BROKER_AWAY = dict.fromkeys(("bars", "list of batches"), (_BROKER,)) | {"quote": _down_or_up(_BROKER)}
# Until the heartbeat tells, nobody knows: then the deadline answers, and after ten of those the breaker.
_BROKER_SILENT = dict.fromkeys(("bars", "list of batches"), (_LATE, _BROKER, _SERVICE)) | {
    "quote": _down_or_up(_LATE, _BROKER, _SERVICE)
}
_BROKER_FLAPS = {
    probe: _down_or_up(_BROKER, _LATE, _SERVICE) for probe in ("bars", "list of batches", "quote")
}
_DATABASE_AWAY = {
    "accept a mail": (_DATABASE,),
    "accept a task": (_DATABASE,),
    "state of a mail": (_DATABASE,),
    "list of batches": (_DATABASE, _LATE),
    "bars": _down_or_up(_DATABASE, _PROVIDER, _LATE),
    "user": (_DATABASE,),
}
# Until two questions are without an answer nobody knows: then the deadline answers.
_DATABASE_SILENT = {
    probe: tuple(dict.fromkeys((*answers, _LATE))) for probe, answers in _DATABASE_AWAY.items()
}
_DATABASE_FLAPS = {
    "accept a mail": ("202", _DATABASE),
    "accept a task": ("202", _DATABASE),
    "state of a mail": _down_or_up(_DATABASE),
    "list of batches": _down_or_up(_DATABASE, _LATE),
    "bars": _down_or_up(_DATABASE, _PROVIDER, _LATE),
    "user": _down_or_up(_DATABASE),
}


def _service(name: str, *probes: str) -> list[Cell]:
    flaps = {probe: _down_or_up(_SERVICE, _LATE) for probe in probes}
    pushed = {"quote": _down_or_up(_SERVICE, _LATE)} if name == "stock-data" else {}
    return [
        Cell(name, "down", dict.fromkeys(probes, (_SERVICE,)) | pushed),
        Cell(name, "slow", {}),
        Cell(name, "black hole", dict.fromkeys(probes, (_LATE, _SERVICE)) | pushed),
        Cell(name, "flapping", flaps | pushed),
    ]


CELLS = (
    Cell("rabbitmq", "down", _BROKER_AWAY, "broker-publish"),
    Cell("rabbitmq", "slow", {}),
    Cell("rabbitmq", "black hole", _BROKER_SILENT, "broker-consume"),
    Cell("rabbitmq", "flapping", _BROKER_FLAPS, flaps=True),
    Cell("postgres", "down", _DATABASE_AWAY, "database"),
    Cell("postgres", "slow", {}),
    Cell("postgres", "black hole", _DATABASE_SILENT, "database"),
    Cell("postgres", "flapping", _DATABASE_FLAPS, flaps=True),
    *(Cell("memcached", fault, {}) for fault in FAULTS),
    *_service("stock-data", "bars"),
    *_service("email"),
    *_service("batch-processor", "list of batches"),
    *(Cell("mailbox_smtp", fault, {}) for fault in FAULTS),
    # The only provider: with a second one its answer comes, and a warning. A quote may still be known.
    Cell(PROVIDER, "down", {"bars": (_PROVIDER,), "quote": _down_or_up(_PROVIDER)}),
    Cell(PROVIDER, "slow", {}),
    Cell(PROVIDER, "black hole", {"bars": (_PROVIDER, _LATE), "quote": _down_or_up(_PROVIDER, _LATE)}),
    Cell(PROVIDER, "flapping", dict.fromkeys(("bars", "quote"), _down_or_up(_PROVIDER, _LATE))),
)

_LATENCY_S = {"rabbitmq": 0.2, "postgres": 0.02, "memcached": 1.0, "mailbox_smtp": 0.5, PROVIDER: 0.2}


def suffering(rig: Rig, cell: Cell) -> AbstractAsyncContextManager[None]:
    """Return the fault of `cell` for the length of the block."""
    if cell.dependency in rig.proxies:
        return _server_suffers(rig, cell)
    return _service_suffers(rig, cell)


@asynccontextmanager
async def _server_suffers(rig: Rig, cell: Cell) -> AsyncIterator[None]:
    proxy = rig.proxies[cell.dependency]
    try:
        if cell.fault == "flapping":
            async with proxy.flapping(up_s=1, down_s=1):
                yield
            return
        if cell.fault == "down":
            await proxy.refuse()
        elif cell.fault == "slow":
            proxy.set(latency_s=_LATENCY_S[cell.dependency])
        else:
            proxy.black_hole()
        yield
    finally:
        await proxy.recover()


@asynccontextmanager
async def _service_suffers(rig: Rig, cell: Cell) -> AsyncIterator[None]:
    name = cell.dependency
    if cell.fault == "down":
        await rig.stack.stop(name)
        try:
            yield
        finally:
            await rig.stack.start(name)
    elif cell.fault == "black hole":
        async with harm.freezing(rig, name):
            yield
    else:
        run_s, stop_s = (0.1, 0.2) if cell.fault == "slow" else (1.0, 1.0)
        async with harm.throttling(rig, name, run_s=run_s, stop_s=stop_s):
            yield


async def ask_all(client: httpx.AsyncClient, names: Mapping[str, str]) -> list[ProbeResult]:
    """Ask every probe at the same time; `names` fill their paths."""
    return list(await asyncio.gather(*(_ask(client, probe, names) for probe in PROBES)))


async def _ask(client: httpx.AsyncClient, probe: str, names: Mapping[str, str]) -> ProbeResult:
    method, path, body = _BODIES[probe]
    started = time.monotonic()
    answer = await client.request(method, path.format(**names), json=body)
    elapsed_s = time.monotonic() - started
    return ProbeResult(probe, describe(answer), elapsed_s, answer.headers.get("retry-after"))


def complaints(cell: Cell, seen: list[ProbeResult]) -> list[str]:
    """Return the answers that break a promise."""
    found = []
    for one in seen:
        if one.answer not in cell.allowed(one.probe):
            found.append(f"{one.probe}: {one.answer} instead of {' or '.join(cell.allowed(one.probe))}")
        if one.elapsed_s > CAP_S:
            found.append(f"{one.probe}: {one.answer} after {one.elapsed_s:.1f} s, over {CAP_S} s")
        if one.answer.startswith(_WITH_RETRY_AFTER) and not one.retry_after:
            found.append(f"{one.probe}: {one.answer} without Retry-After")
    return found


def render() -> str:
    """Return the promises as a Markdown table."""
    heads = ["dependency", "fault", *PROBES, "reason in /readyz"]
    lines = [_line(heads), _line(["---"] * len(heads))]
    for cell in CELLS:
        answers = [" or ".join(cell.allowed(probe)) for probe in PROBES]
        lines.append(_line([cell.dependency, cell.fault, *answers, cell.readiness]))
    return "\n".join(lines) + "\n"


def _line(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"
