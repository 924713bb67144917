"""Load by wrk from loopback: bounded in time and connections, and it stops by itself."""

from __future__ import annotations

import asyncio
import re
import statistics
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import httpx
import psutil


@dataclass(frozen=True)
class LoadResult:
    """The result of a load: units per second, and the CPU time of the processes for each, in µs."""

    per_second: float
    cpu_us: float | None = None


def median(loads: Sequence[LoadResult]) -> LoadResult:
    """Return the medians of several rounds."""
    rates = [load.per_second for load in loads]
    costs = [load.cpu_us for load in loads if load.cpu_us is not None]
    return LoadResult(statistics.median(rates), statistics.median(costs) if costs else None)


async def measure(
    url: str, *, seconds: int, headers: Mapping[str, str] = {}, body: bytes | None = None
) -> LoadResult:
    """Put `url` under load; return its rate and what an answer costs the process that listens there."""
    server = _listening(httpx.URL(url).port)
    before = _cpu_s(server)
    rate = await requests_per_second(url, seconds=seconds, headers=headers, body=body)
    return LoadResult(rate, 1e6 * (_cpu_s(server) - before) / (rate * seconds))


def _listening(port: int | None) -> psutil.Process:
    pids = {
        found.pid
        for found in psutil.net_connections(kind="tcp")
        if found.status == psutil.CONN_LISTEN and found.laddr and found.laddr.port == port
    }
    (pid,) = pids
    return psutil.Process(pid)


def _cpu_s(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


async def requests_per_second(
    url: str,
    *,
    seconds: int,
    connections: int = 32,
    headers: Mapping[str, str] = {},
    body: bytes | None = None,
) -> float:
    """Return how many answers of status 2xx a second `url` gives; any other answer is an error.

    With a `body`, which is JSON, the requests are POSTs.
    """
    arguments = [part for name, value in headers.items() for part in ("-H", f"{name}: {value}")]
    with tempfile.NamedTemporaryFile("w", suffix=".lua") as script:
        if body is not None:
            script.write(f"wrk.method = 'POST'\nwrk.body = [[{body.decode()}]]\n")
            script.flush()
            arguments += ["-s", script.name]
        return await _run(url, seconds, connections, arguments)


async def _run(url: str, seconds: int, connections: int, arguments: Sequence[str]) -> float:
    process = await asyncio.create_subprocess_exec(
        "wrk", "-t1", f"-c{connections}", f"-d{seconds}s", *arguments, url, stdout=asyncio.subprocess.PIPE
    )
    try:
        output = (await process.communicate())[0].decode()
    except asyncio.CancelledError:
        process.kill()
        await process.wait()
        raise
    found = re.search(r"Requests/sec:\s+([\d.]+)", output)
    if found is None or "Non-2xx" in output:
        raise RuntimeError(f"the load on {url} went wrong:\n{output}")
    return float(found[1])
